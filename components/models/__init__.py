"""Networks by name, and what a trained one is on disk: weights, a config and a learning curve."""

from components.models.catalogue import ARCHITECTURES, check_architecture

__all__ = ["ARCHITECTURES", "check_architecture"]
