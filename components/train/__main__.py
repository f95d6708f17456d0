from components.step import Metadata, main
from components.train.interface import Train


def work(step: Train) -> Metadata:
    # Imported here, so that --help and a wrong flag do not wait for what the work needs.
    from components.train.train import train

    return train(step)


main(Train, work)
