"""The train step on many nodes as a process, in less of a hurry to give up and more to look: `launching FACTS FLAGS`.

FACTS is JSON: the training's identity, and constants of the modules by name, such as `pending.PENDING_SECONDS`.
"""

import importlib
import json
import sys

from components.step import Metadata, main
from components.train import trainjob
from components.train.interface import Train


def set_constants(constants: dict[str, float]) -> None:
    """Each is named by module and name."""
    for path, value in constants.items():
        module, _, name = path.rpartition(".")
        setattr(importlib.import_module(module), name, value)


def run(step: Train) -> Metadata:
    """Trains, and prints what the step says of its outputs."""
    metadata = trainjob.run(step, facts["identity"])
    print(json.dumps({"metadata": metadata}), flush=True)
    return metadata


if __name__ == "__main__":
    facts = json.loads(sys.argv[1])
    set_constants(facts["constants"])
    main(Train, run, sys.argv[2:])
