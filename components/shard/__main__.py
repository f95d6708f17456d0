from components.shard.interface import Shard
from components.step import Metadata, main


def work(step: Shard) -> Metadata:
    # Imported here, so that --help and a wrong flag do not wait for what the work needs.
    from components.shard.shard import shard

    return shard(step)


main(Shard, work)
