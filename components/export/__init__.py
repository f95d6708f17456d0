"""Exports a model to ONNX, proves that it answers like PyTorch, and publishes it."""
