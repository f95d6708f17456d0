"""Judges a model on the test split, once, against the limits and the champion of the registry."""
