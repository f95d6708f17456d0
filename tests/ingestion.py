"""The three steps of the ingestion, one after the other in this process, as the pipeline runs them."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from components.ingest.ingest import ingest
from components.ingest.interface import Ingest
from components.plan.interface import Plan
from components.plan.plan import plan
from components.shard.interface import Shard
from components.shard.shard import shard


def make_dataset(source: object, store: str, folder: Path, workers: int = 1, **parameters: Any) -> Path:
    """Ingests a source into the store at a URI; returns the manifest's path, below `folder`, where the artifacts go.

    `parameters` are those of the steps, each for whichever has it.
    """

    def of(interface: type) -> dict[str, Any]:
        names = {field.name for field in fields(interface)}
        return {"store": store} | {name: value for name, value in parameters.items() if name in names}

    plan(Plan(source=str(source), ingest_workers=workers, plan=folder / "plan", workers=folder / "workers", **of(Plan)))
    digest = (folder / "plan").read_text()
    for worker in json.loads((folder / "workers").read_text()):
        shard(Shard(plan=digest, worker=worker, workers=workers, **of(Shard)))
    dataset, report, decision = folder / "dataset", folder / "report", folder / "decision"
    ingest(Ingest(plan=digest, dataset=dataset, report=report, decision=decision, **of(Ingest)))
    return dataset
