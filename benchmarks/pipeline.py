"""The main job and the machinery around it: wall time, time in the steps' own work, time of the quick commands.

python -m benchmarks.pipeline
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RETRAIN = str(Path(sys.executable).with_name("retrain"))


def main() -> None:
    for command, goal in ((["--help"], 1), (["compile"], 3)):
        seconds = statistics.median(timed([RETRAIN, *command])[0] for _ in range(5))
        print(f"retrain {command[0]:<10} {seconds:6.2f} s   (median of 5; goal: at most {goal} s)")
    with tempfile.TemporaryDirectory() as store:
        for attempt, flags in (("first run", []), ("second run, dataset reused", ["--seed", "1"])):
            wall, printed = timed([RETRAIN, "run", "--store", store, *flags])
            own = own_work(max((Path(store) / "runs").glob("retrain-*")), printed)
            machinery = (wall - sum(own.values())) / len(own)
            print(f"main job, {attempt}: {wall:.1f} s (goal: at most 120 s)")
            print("  own work: " + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in own.items()))
            print(f"  machinery: {machinery:.2f} s a step, imports included (goal: at most 3 s)")


def timed(command: list[str]) -> tuple[float, str]:
    """Wall time of a command that must succeed, in seconds, and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        printed = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
        return time.perf_counter() - start, printed


def own_work(run: Path, printed: str) -> dict[str, float]:
    """The seconds that each step of a run counted for itself; of the shards, which run at once, the longest."""
    verdict = json.loads((run / "evaluate" / "verdict").read_text())
    release = json.loads((run / "export" / "release").read_text())
    return {
        "plan": float(re.findall(r"^plan .* planned in ([\d.]+) s$", printed, re.M)[0]),
        "shard": max(map(float, re.findall(r"^shard .* chunks done in ([\d.]+) s", printed, re.M))),
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
