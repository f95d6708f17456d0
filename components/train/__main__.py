import os

from components.step import Metadata, main
from components.train.interface import Train


def work(step: Train) -> Metadata:
    """Trains in this process, or starts those that do."""
    # Imported here, so that --help and a wrong flag do not wait for what the work needs.
    if "RANK" in os.environ:
        from components.train.processes import die_with_launcher

        die_with_launcher()
    elif int(step.gpus) > 1:
        from components.train.launch import launch

        return launch(step, int(step.gpus))
    from components.train.train import train

    return train(step)


main(Train, work)
