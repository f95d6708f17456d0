from components.export.interface import Export
from components.step import Metadata, main


def work(step: Export) -> Metadata:
    # Imported here, so that --help and a wrong flag do not wait for what the work needs.
    from components.export.export import export

    return export(step)


main(Export, work)
