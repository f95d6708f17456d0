"""Shard: reads, checks and writes the images of its chunks of the plan."""
