"""Which code this is."""

import shutil
import subprocess
import sys
from pathlib import Path

import components
from components.code import code_digest


def test_the_digest_is_the_same_each_time() -> None:
    assert code_digest() == code_digest()
    assert len(code_digest()) == 64


def test_the_digest_changes_with_any_source(tmp_path: Path) -> None:
    copied = tmp_path / "components"
    shutil.copytree(Path(components.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    script = "from components.code import code_digest; print(code_digest())"

    def digest() -> str:
        return subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert digest() == code_digest()
    with (copied / "train" / "train.py").open("a") as source:
        source.write("# another\n")
    assert digest() != code_digest()
