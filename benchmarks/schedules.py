"""500 schedules against a loopback server: the time and the requests of plan, of apply and of next.

python -m benchmarks.schedules
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.pipelines.timetables import install
from tests.servers.kfp import FakeKubeflow

RETRAIN = str(Path(sys.executable).with_name("retrain"))
COUNT = 500


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, FakeKubeflow() as server:
        install(server)
        for cron in ("3 * * *", "4 * * 1-5"):
            entries = [f'- {{name: schedule-{n}, cron: "{n % 60} {cron}"}}' for n in range(COUNT)]
            (Path(folder) / "schedules.yaml").write_text("schedules:\n" + "\n".join(entries))
            for command in ("plan", "apply", "plan", "next"):
                flags = ["--host", server.url] if command != "next" else []
                with server.counted() as requests:
                    seconds = timed([RETRAIN, "schedule", command, *flags], folder)
                goal = "; goal: at most 3 s" if command == "plan" else ""
                print(f"schedule {command:<6} of {COUNT}: {seconds:5.2f} s, {len(requests):4} requests{goal}")


def timed(command: list[str], folder: str) -> float:
    """Wall time of a command that must succeed, in seconds; its start and its imports are part of it."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
