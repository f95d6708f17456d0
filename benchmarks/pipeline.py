"""The main job and the machinery around it: wall time, time in the steps' own work, time of the quick commands.

python -m benchmarks.pipeline
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RETRAIN = str(Path(sys.executable).with_name("retrain"))


def main() -> None:
    for command, goal in ((["--help"], 1), (["compile"], 3)):
        seconds = statistics.median(timed([RETRAIN, *command]) for _ in range(5))
        print(f"retrain {command[0]:<10} {seconds:6.2f} s   (median of 5; goal: at most {goal} s)")
    with tempfile.TemporaryDirectory() as store:
        for attempt, flags in (("first run", []), ("second run, dataset reused", ["--seed", "1"])):
            wall = timed([RETRAIN, "run", "--store", store, *flags])
            own = own_work(max((Path(store) / "runs").glob("retrain-*")))
            machinery = (wall - sum(own.values())) / len(own)
            print(f"main job, {attempt}: {wall:.1f} s (goal: at most 120 s)")
            print("  own work: " + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in own.items()))
            print(f"  machinery: {machinery:.2f} s a step, imports included (goal: at most 3 s)")


def timed(command: list[str]) -> float:
    """Wall time of a command that must succeed, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def own_work(run: Path) -> dict[str, float]:
    """The seconds that each step of a run counted for itself."""
    verdict = json.loads((run / "evaluate" / "verdict").read_text())
    release = json.loads((run / "export" / "release").read_text())
    return {
        "ingest": metadata(run, "ingest", "dataset")["seconds"],
        "train": metadata(run, "train", "metrics")["seconds"],
        "evaluate": verdict["seconds"],
        "export": release["seconds"],
    }


def metadata(run: Path, step: str, output: str) -> dict[str, float]:
    """What a step said of one of its output artifacts."""
    said = json.loads((run / step / "executor_output.json").read_text())
    found: dict[str, float] = said["artifacts"][output]["artifacts"][0]["metadata"]
    return found


if __name__ == "__main__":
    main()
