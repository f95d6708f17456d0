"""docs/data.md tells of the data as it is."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from components.dataset.quarantine import REASONS
from components.ingest.limits import LIMITS, read_limits
from components.source.split import SPLITS
from components.storage import DirectoryStore
from pipelines.cli import main
from pipelines.parameters import STEPS, parameters
from tests.components.ingest.trees import make, plant, split_classes

PAGE = Path(__file__).parent.parent / "docs" / "data.md"
TEXT = PAGE.read_text()


def test_every_command_that_it_shows_is_one() -> None:
    commands = re.findall(r"(?:^    |`)retrain ((?:data )?[a-z]+)", TEXT, re.M)
    assert {"run", "data list", "data describe", "data diff"} <= set(commands)
    for command in set(commands):
        assert CliRunner().invoke(main, [*command.split(), "--help"]).exit_code == 0, command


def test_every_flag_that_it_shows_is_one() -> None:
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT))
    assert {"--source", "--parent", "--limits"} <= shown
    pages = [["run", "--help"], *(["data", name, "--help"] for name in ("list", "describe", "diff"))]
    help = " ".join(CliRunner().invoke(main, page).output for page in pages)
    assert {flag for flag in shown if not re.search(rf"{flag}\b", help)} == set()


def test_every_parameter_that_it_names_is_one_of_the_pipeline() -> None:
    named = set(re.findall(r"`([a-z]+_(?:fraction|workers))`", TEXT)) | {"source", "parent", "limits", "store"}
    assert len(named) == 7
    assert named <= {field.name for field in parameters()}


def test_every_limit_stands_in_its_table_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| (.+) \|$", TEXT, re.M)
    assert rows == [(name, f"{limit.default:g}", limit.meaning) for name, limit in LIMITS.items()]


def test_the_limits_that_it_shows_are_understood() -> None:
    (shown,) = re.findall(r"--limits '([^']+)'", TEXT)
    assert read_limits(shown)["min_images"] == 20


def test_every_reason_stands_in_its_table_with_its_meaning() -> None:
    table = TEXT.split("| reason | the image |")[1].split("\n\n")[0]
    assert re.findall(r"^\| ([\w ]+) \| (.+) \|$", table, re.M) == list(REASONS.items())


def test_every_layout_and_name_of_a_split_is_told() -> None:
    from components.source.idx import Idx
    from components.source.parquet import Parquet
    from components.source.table import Table
    from components.source.tree import Tree
    from components.source.webdataset import WebDataset

    layouts = TEXT.split("| layout |")[1].split("\n\n")[0]
    told = re.findall(r"^\| (\w+) \|", layouts, re.M)
    assert told == [source.kind for source in (Tree, Table, Parquet, WebDataset, Idx)]
    assert {"train", "validation", "val", "valid", "dev", "test"} <= set(SPLITS)


def test_the_parts_of_a_dataset_are_called_what_it_says(store: DirectoryStore, tmp_path: Path) -> None:
    make(plant(tmp_path / "source", split_classes()), store, tmp_path / "made")
    named = {line.split()[0] for line in TEXT.splitlines() if line.startswith("    datasets/")}
    kinds = {
        re.sub("[0-9a-f]{64}", "DIGEST" if key.endswith("json") else "SHA256", key) for key in store.keys("datasets/")
    }
    assert kinds == named


@pytest.mark.parametrize("encoding", ["encoded", "raw"])
def test_the_example_reads_a_dataset(
    encoding: str, idx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path / "retrain-store")
    source = idx_folder if encoding == "raw" else plant(tmp_path / "source", split_classes())
    manifest = make(source, store, tmp_path / "made")
    assert manifest.encoding == encoding
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    assert names["row"] == manifest.images("train") - 1
    assert manifest.classes[int(str(names["number"]))] == str(names["label"])
    assert np.asarray(names["picture"]).shape[:2] == manifest.shape[:2]


def test_the_steps_are_those_that_it_tells_of() -> None:
    told = re.findall(r"\*\*(plan|shard|ingest)\*\*", TEXT)
    assert told == [step.__name__.lower() for step in STEPS[:3]]
