"""`python -m components.models NAME`: a network of timm or torchvision as JSON, for commands that import no torch."""

import json
import sys
from dataclasses import asdict

from components.models import library
from components.models.measure import measure
from components.step import UserError


def explain(source: str) -> dict[str, object]:
    """The figures of a network and what its library says of its code and its weights."""
    weights = library.weights(source)
    return {**asdict(measure(source)), "licence": library.licence(source), "weights": weights and asdict(weights)}


if __name__ == "__main__":
    try:
        print(json.dumps(explain(sys.argv[1])))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)
