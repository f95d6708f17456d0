"""The documents say what is so."""

import re
from pathlib import Path

from pipelines.reference import reference
from pipelines.settings import read_settings

ROOT = Path(__file__).parent.parent


def test_the_reference_is_made_from_the_interfaces() -> None:
    assert (ROOT / "docs" / "reference.md").read_text() == reference(), "call `make docs`"


def test_every_file_that_the_readme_names_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme)
    named = re.findall(r"^\| `([\w./]+)` ", readme, re.M)
    assert linked
    assert named
    assert [path for path in linked + named if not (ROOT / path).exists()] == []


def test_every_make_target_that_the_readme_names_exists() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", (ROOT / "README.md").read_text(), re.M)) <= set(targets)


def test_the_settings_that_the_docs_show_are_understood(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "settings.md").read_text(), re.S)
    (tmp_path / "settings.toml").write_text(shown)
    settings = read_settings(tmp_path / "settings.toml", "production")
    assert settings.steps["train"].node_selector == {"pool": "gpu"}
    assert settings.secret == "retrain-store"
