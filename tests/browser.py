"""Headless Chromium, to look at pages."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = "Chromium is not here: apt-get install chromium"

FLAGS = (
    # Without a window, without a sandbox (tests may run as root in a container), without anything in the background.
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--disable-extensions", "--disable-default-apps", "--host-resolver-rules=MAP * ~NOTFOUND"),
    # The console's messages go to stderr: [1:1:0101/120000.0:INFO:CONSOLE:7] "message", source: file:///… (7)
    *("--enable-logging=stderr", "--v=0"),
)


def screenshot(page: Path, picture: Path, width: int, height: int, dark: bool = False) -> list[str]:
    """Renders a page to a PNG of so many pixels; returns the messages on its console."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        finished = subprocess.run(
            [
                str(CHROMIUM),
                *FLAGS,
                *(["--blink-settings=preferredColorScheme=0"] if dark else []),
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--screenshot={picture}",
                page.absolute().as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    assert picture.exists(), finished.stderr
    return re.findall(r":CONSOLE.*", finished.stderr)
