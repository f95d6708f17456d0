"""`retrain compile`: what it says of a file that cannot be written."""

from pathlib import Path

import pytest

from tests.commands import retrain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("retrain.json", "--output must be a file whose name ends in .yaml, not 'retrain.json'"),
        (".", "--output must be a file whose name ends in .yaml, not '.'"),
        ("folder.yaml", "--output must be a file, and no directory of that name, not 'folder.yaml'"),
        ("file/retrain.yaml", "--output 'file/retrain.yaml' cannot be written (File exists); name another file"),
        ("/proc/none/retrain.yaml", "--output '/proc/none/retrain.yaml' cannot be written (No such file or directory)"),
    ],
)
def test_a_file_that_cannot_be_written_is_a_users_mistake(output: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.yaml").mkdir()
    ended = retrain("compile", "--output", output, folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {sentence}")
    assert len(ended.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.yaml"]
