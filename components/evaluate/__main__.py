from components.evaluate.interface import Evaluate
from components.step import Metadata, main


def work(step: Evaluate) -> Metadata:
    # Imported here, so that --help and a wrong flag do not wait for what the work needs.
    from components.evaluate.evaluate import evaluate

    return evaluate(step)


main(Evaluate, work)
