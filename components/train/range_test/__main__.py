from components.step import Metadata, main
from components.train.interface import Train


def work(step: Train) -> Metadata:
    from components.train.range_test.range_test import range_test

    return range_test(step)


main(Train, work)
