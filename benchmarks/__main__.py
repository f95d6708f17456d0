"""All benchmarks, one after the other: `make bench`."""

import runpy

NAMES = (
    *("pipeline", "ingestion", "loading", "training", "networks", "checkpoints", "processes", "accuracy"),
    *("kubeflow", "schedules"),
)

for name in NAMES:
    print(f"\n== {name} ==", flush=True)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
