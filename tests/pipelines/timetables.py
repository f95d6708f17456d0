"""What the tests of schedules start from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.parameters import parameters
from pipelines.timetable import Timetable, read_timetable
from tests.servers.kfp import FakeKubeflow, Row

TYPES = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN"}


def install(server: FakeKubeflow, versions: Sequence[str] = ("v1",), namespace: str = "") -> Row:
    """Puts the pipeline on a server, as if it had been uploaded."""
    declared = {
        field.name: {"parameterType": TYPES[field.type], "defaultValue": field.default} for field in parameters()
    }
    pipeline = {"pipeline_id": "P", "name": "retrain", "display_name": "retrain", "namespace": namespace}
    server.pipelines["P"] = pipeline | {"created_at": server.time()}
    for number, name in enumerate(versions):
        server.versions[f"id of {name}"] = {
            "pipeline_id": "P",
            "pipeline_version_id": f"id of {name}",
            "name": name,
            "display_name": name,
            "created_at": f"2026-01-{number + 1:02}T00:00:00Z",
            "pipeline_spec": {"root": {"inputDefinitions": {"parameters": declared}}},
        }
    return pipeline


def timetable(folder: Path, text: str) -> Timetable:
    """A timetable from the text of its file."""
    path = folder / "schedules.yaml"
    path.write_text(text)
    return read_timetable(path)


def schedule_names(server: FakeKubeflow, **fields: Any) -> list[str]:
    """The names of the recurring runs of which these fields are so."""
    rows = server.recurring_runs.values()
    return sorted(row["display_name"] for row in rows if all(row.get(key) == value for key, value in fields.items()))
