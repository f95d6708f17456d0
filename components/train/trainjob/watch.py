"""The objects of a kind as they are in the cluster, kept so by a thread."""

import json
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

from components.storage.connection import pause
from components.train.trainjob.cluster import Cluster, Object, Refused

Changes = SimpleQueue[Exception | None]
"""Where threads tell that something has changed, or what has ended them."""

SERVED_SECONDS = 50
"""After which the server is to end a watch; the client takes a silent connection for broken a little later."""


class Watch(threading.Thread):
    """Lists the objects and follows what becomes of them; lists again where the connection breaks or the server asks.

    `objects` has them by name, None before they have been listed; it is replaced, never changed.
    """

    def __init__(self, cluster: Cluster, resource: str, changes: Changes, **selector: str) -> None:
        super().__init__(daemon=True)
        self.cluster, self.path, self.changes, self.selector = cluster, cluster.path(resource), changes, selector
        self.objects: dict[str, Object] | None = None
        self.ended = False

    def run(self) -> None:
        failures = 0
        try:
            while not self.ended:
                version = self._list()
                failures = 0 if self._follow(version) else failures + 1
                if failures:
                    time.sleep(pause(failures))
        except Exception as error:  # a bug, too: it is raised where somebody waits for changes
            self.changes.put(error)

    def end(self) -> None:
        """Has the thread end, when it next hears of something."""
        self.ended = True

    def _list(self) -> str:
        """Reads all of them; returns the version that they are of."""
        listed = self.cluster.call("GET", self.path, query=self.selector)
        self._set({item["metadata"]["name"]: item for item in listed["items"]})
        return str(listed["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> bool:
        """Follows them until the watch ends; False where it ended without a word."""
        start, heard = time.monotonic(), False
        for event in map(json.loads, self._events(version)):
            if event["type"] == "ERROR" or self.ended:  # 410: the version is too old to follow from
                return heard
            heard = True
            self._apply(event["type"], event["object"])
        return heard or time.monotonic() - start >= SERVED_SECONDS / 2

    def _events(self, version: str) -> Iterator[str]:
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(SERVED_SECONDS)}
        try:
            yield from self.cluster.lines(self.path, self.selector | query)
        except Refused as refused:
            if refused.status != 410:
                raise

    def _apply(self, kind: str, item: Object) -> None:
        rest = {name: known for name, known in (self.objects or {}).items() if name != item["metadata"]["name"]}
        self._set(rest if kind == "DELETED" else rest | {item["metadata"]["name"]: item})

    def _set(self, objects: dict[str, Object]) -> None:
        if objects != self.objects:
            self.objects = objects
            self.changes.put(None)
