"""`retrain submit` and `retrain status` against a loopback server that has 10,000 runs: requests and wall time.

python -m benchmarks.kubeflow
"""

import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.pipelines.timetables import install
from tests.servers.kfp import FakeKubeflow

RETRAIN = str(Path(sys.executable).with_name("retrain"))
RUNS, SCHEDULES = 10_000, 500
STEPS = ("plan", "shard", "ingest", "train", "evaluate", "export")


def main() -> None:
    with FakeKubeflow() as server, tempfile.TemporaryDirectory() as store:
        fill(server)
        place = ["--host", server.url]
        newest = next(reversed(server.runs))
        measure(server, "status", ["status", *place, "--store", store], "at most 20 requests, 2 s")
        measure(server, "status RUN", ["status", newest, *place, "--store", store], "")
        version = ["--pipeline-version", "latest"]
        measure(server, "submit --pipeline-version latest", ["submit", *place, *version], "at most 6 requests")
        subprocess.run([RETRAIN, "upload", *place], check=True, stdout=subprocess.DEVNULL)
        measure(server, "submit", ["submit", *place], "at most 6 requests")
        measure(server, "submit again, same key", ["submit", *place, "--idempotency-key", "k"], "at most 6 requests")


def fill(server: FakeKubeflow) -> None:
    """Runs with all their nodes, as they end, and schedules."""
    install(server)
    reference = {"pipeline_version_reference": {"pipeline_id": "P", "pipeline_version_id": "id of v1"}}
    for number in range(RUNS):
        made = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + 600 * number
        server.now = lambda made=made: made  # type: ignore[misc]
        run = server.add_run(**reference)
        server.tasks(run["run_id"], dict.fromkeys(STEPS, "SUCCEEDED"))
        server.finish(run["run_id"], "SUCCEEDED")
    for number in range(SCHEDULES):
        row = {"recurring_run_id": f"s{number}", "display_name": f"schedule-{number}", "created_at": server.time()}
        trigger = {"trigger": {"cron_schedule": {"cron": f"0 {number % 60} 3 * * *"}}, "status": "ENABLED"}
        server.recurring_runs[f"s{number}"] = row | trigger | reference
    server.now = time.time


def measure(server: FakeKubeflow, name: str, command: list[str], goal: str) -> None:
    """Runs a command that must succeed, its start and its imports being part of the time."""
    seconds = []
    with server.counted() as requests:
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([RETRAIN, *command], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
    told = f"   (goal: {goal})" if goal else ""
    print(f"{name:<34} {len(requests) / 5:5.1f} requests, {statistics.median(seconds):.2f} s{told}", flush=True)


if __name__ == "__main__":
    main()
