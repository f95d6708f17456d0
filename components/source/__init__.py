"""Where labelled images come from: layouts of files in a directory or in S3, each read as a stream of examples."""

from components.source.recognition import open_source

__all__ = ["open_source"]
