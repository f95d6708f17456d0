"""Trains a classifier on the training split of a dataset."""
