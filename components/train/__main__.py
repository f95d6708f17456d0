import os

from components.step import Metadata, die_with_parent, main
from components.train.interface import Train


def work(step: Train) -> Metadata:
    """Trains in this process, or starts those that do: here, or on other nodes."""
    # Imported here, so that --help and a wrong flag do not wait for what the work needs.
    if "RANK" in os.environ:
        die_with_parent()
    elif step.nodes > 1:
        from components.dataset.manifest import read_manifest
        from components.storage import open_store
        from components.train.train import describe, identity
        from components.train.trainjob import run

        return run(step, identity(step, describe(step, read_manifest(step.dataset)), open_store(step.store)))
    elif int(step.gpus) > 1:
        from components.train.launch import launch

        return launch(step, int(step.gpus))
    from components.train.train import train

    return train(step)


main(Train, work)
