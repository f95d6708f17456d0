from components.ingest.interface import Ingest
from components.step import Metadata, main


def work(step: Ingest) -> Metadata:
    # Imported here, so that --help and a wrong flag do not wait for what the work needs.
    from components.ingest.ingest import ingest

    return ingest(step)


main(Ingest, work)
