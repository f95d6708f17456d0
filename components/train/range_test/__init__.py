"""A learning-rate range test: which learning rate to train with, found before the training."""
