"""What a worker prints: as it comes, and its end."""

import sys
import threading
from collections.abc import Iterator

from components.step import UserError
from components.storage.connection import pause
from components.train.trainjob.cluster import Cluster, Refused
from components.train.trainjob.resource import NODE

TAIL_LINES = 200


class Log(threading.Thread):
    """Prints a worker's log as it grows, until `end`; goes on where it stopped when the connection breaks."""

    def __init__(self, cluster: Cluster, pod: str) -> None:
        super().__init__(daemon=True)
        self.cluster, self.pod, self.path = cluster, pod, f"{cluster.path('pods', pod)}/log"
        self.last = ""  # the time of the last line that was printed
        self.ended = threading.Event()

    def run(self) -> None:
        failures, over = 0, False
        try:
            while not over:
                over = self.ended.is_set()  # asked first, so that what was printed before the end is read once more
                before = self.last
                for line in self._rest():
                    print(line, flush=True)
                failures = 0 if self.last != before else failures + 1
                self.ended.wait(pause(max(1, failures)))
        except UserError as error:
            print(f"warning: the workers' log cannot be shown: {error}", file=sys.stderr, flush=True)

    def end(self, seconds: float) -> None:
        """Has the rest printed, and waits for it; so long at most."""
        self.ended.set()
        self.join(seconds)

    def _rest(self) -> Iterator[str]:
        """The lines after the last one, until the log or the connection ends."""
        since = {"sinceTime": self.last} if self.last else {}
        follow = {} if self.ended.is_set() else {"follow": "true"}
        try:
            for stamped in self.cluster.lines(self.path, {"container": NODE, "timestamps": "true"} | follow | since):
                moment, _, line = stamped.partition(" ")
                if moment > self.last:  # sinceTime counts whole seconds
                    self.last = moment
                    yield line
        except Refused:  # not yet, or no more: the workers' states tell what matters
            return


def tail(cluster: Cluster, pod: str, *, previous: bool) -> list[str]:
    """The last lines of a worker's log; with `previous` of its container before it was started again."""
    query = {"container": NODE, "tailLines": str(TAIL_LINES)} | ({"previous": "true"} if previous else {})
    try:
        return list(cluster.lines(f"{cluster.path('pods', pod)}/log", query))
    except (Refused, UserError):
        return []
