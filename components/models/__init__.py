"""Networks by name, and what a trained one is on disk: weights, a config and a learning curve."""

from components.models.catalogue import ARCHITECTURES, check_architecture

__all__ = ["ARCHITECTURES", "SIZES", "check_architecture"]

SIZES: dict[str, tuple[int, ...]] = {"lenet5": (32, 28)}
"""Sides, in pixels, of the square images that each takes; the first is the one that it was made for."""
