"""Networks by name, and what a trained one is on disk: weights, a config and a learning curve."""

ARCHITECTURES: dict[str, str] = {
    "lenet5": "LeNet-5 of LeCun, Bottou, Bengio and Haffner (1998), for images of 28 by 28 or 32 by 32 pixels.",
}
"""The architectures that `build` knows, each with one line of help. Needs no torch; a command line lists them."""

SIZES: dict[str, tuple[int, ...]] = {"lenet5": (32, 28)}
"""Sides, in pixels, of the square images that each takes; the first is the one that it was made for."""
