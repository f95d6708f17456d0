"""A way to Kubeflow Pipelines from outside the cluster: `kubectl port-forward`, opened when needed, closed at the end.

Why kubectl: it is where a kubeconfig is, it logs in by any of its plugins, and it speaks the protocol of each version
of Kubernetes. It ends when the pod behind it does; then the next request opens another.
"""

import contextlib
import re
import selectors
import shutil
import subprocess
import tempfile
import threading
from typing import IO

from components.step import UserError
from pipelines.transport import Unreachable

SERVICE = "svc/ml-pipeline"
PORT = 8888
SECONDS = 20.0
"""How long kubectl may take to open the way."""


class Forward:
    """A forwarded port; it costs nothing until `url` is called."""

    def __init__(self, namespace: str, context: str = "") -> None:
        self.namespace = namespace
        self.context = context
        self._process: subprocess.Popen[str] | None = None
        self._stderr: IO[str] | None = None
        self._url = ""
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The service as messages name it."""
        return f"{SERVICE} in namespace {self.namespace!r}" + (f" of context {self.context!r}" if self.context else "")

    def url(self) -> str:
        """The URL of this end, opened if it is not open. Raises UserError or Unreachable where kubectl cannot."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._release()
                self._open()
            return self._url

    def close(self) -> None:
        """Ends kubectl."""
        with self._lock:
            self._release()

    def _open(self) -> None:
        if not shutil.which("kubectl"):
            raise UserError("no --host was given and kubectl is not installed; give --host, or install kubectl")
        # Port 0 of loopback: the system chooses a free one. Its stderr goes to a file, so that it never fills a pipe.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = ["kubectl", "port-forward", "--address=127.0.0.1", f"--namespace={self.namespace}"]
        command += [f"--context={self.context}"] if self.context else []
        self._process = subprocess.Popen(
            [*command, SERVICE, f":{PORT}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,  # Ctrl-C is ours: with --cancel-on-interrupt the way is still needed
        )
        opened = re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", self._first_line())
        if not opened:
            raise self._failure()
        self._url = f"http://127.0.0.1:{opened.group(1)}"

    def _failure(self) -> Exception:
        """Why there is no way, in kubectl's own words."""
        words = self._last_words()
        self._release()
        why = f"cannot open a port-forward to {self.name}: {words}"
        if self._url:
            return Unreachable(f"{why}; it was open before")
        if re.search("unable to connect|refused|time(d )?out|no such host|no answer", words, re.IGNORECASE):
            return Unreachable(f"{why}; check that the cluster runs, or give --host", again=False)
        return UserError(f"{why}; check the kubeconfig, or give --host")

    def _first_line(self) -> str:
        assert self._process
        assert self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            return self._process.stdout.readline() if selector.select(SECONDS) else ""

    def _last_words(self) -> str:
        assert self._process
        assert self._stderr
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        self._stderr.seek(0)
        words = [line.strip() for line in self._stderr if line.strip()]
        return words[-1].removeprefix("error: ").rstrip(".") if words else f"no answer in {SECONDS:.0f} seconds"

    def _release(self) -> None:
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
        if self._stderr:
            self._stderr.close()
        self._process = self._stderr = None
