"""Turns labelled images into a dataset."""
