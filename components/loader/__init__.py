"""Loader: the images of a dataset as batches, read ahead from the store, in an exact and resumable order."""
