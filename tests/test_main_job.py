"""The main job, as the README promises it: the real MNIST through the compiled pipeline."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.dataset.manifest import read_manifest
from components.loader.batches import batches
from components.storage import DirectoryStore
from tests.browser import CHROMIUM, MISSING, screenshot
from tests.commands import release, retrain

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished main job, and what it printed."""
    folder = tmp_path_factory.mktemp("main-job")
    ended = retrain("run", folder=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_the_main_job_makes_an_accurate_champion(finished: tuple[Path, str]) -> None:
    published = release(finished[0] / "retrain-store")
    assert published["champion"]
    assert published["version"]["facts"]["accuracy"] >= 0.99
    assert published["parity"]["images"] == 10_000
    assert published["parity"]["agreement"] >= 0.999


def test_the_summary_says_what_happened_and_where_everything_is(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    assert re.search(r"^accepted: 99\.\d\d% test accuracy; mnist version 1, the champion$", printed, re.M)
    for step in ("ingest", "train", "evaluate", "export", "total"):
        assert re.search(rf"^  {step} +\d+\.\d s", printed, re.M)
    places = dict(re.findall(r"^  (model|report|ONNX) +(\S+)$", printed, re.M))
    assert set(places) == {"model", "report", "ONNX"}
    for place in places.values():
        assert (folder / place).exists()
    assert "Try next: retrain predict" in printed


def test_the_champion_reads_real_digits_from_png_and_jpeg_files(finished: tuple[Path, str]) -> None:
    folder = finished[0]
    store = DirectoryStore(folder / "retrain-store")
    run = max((store.root / "runs").glob("retrain-*"))
    images, labels = next(batches(store, read_manifest(run / "ingest" / "dataset"), "test", (28, 28, 1)))
    for index in range(20):
        picture = Image.fromarray(images[index, :, :, 0])
        picture.save(folder / f"{index}.png")
        picture.save(folder / f"{index}.jpg", quality=95)
    names = [f"{index}.{kind}" for index in range(20) for kind in ("png", "jpg")]
    found = json.loads(retrain("predict", "--json", *names, folder=folder).stdout)
    right = [prediction["label"] == str(labels[int(Path(prediction["file"]).stem)]) for prediction in found]
    assert sum(right) >= 38


def test_the_digits_of_the_readme_are_read_right(finished: tuple[Path, str]) -> None:
    pictures = sorted((DOCS / "digits").glob("*.png"))
    assert pictures
    found = json.loads(retrain("predict", "--json", *pictures, folder=finished[0]).stdout)
    assert [prediction["label"] for prediction in found] == [picture.stem for picture in pictures]


def test_a_model_is_used_elsewhere_as_the_docs_show(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "models.md").read_text()
    shown = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    published = release(finished[0] / "retrain-store")["version"]["digest"]
    shutil.copy(DOCS / "digits" / "7.png", finished[0])
    monkeypatch.chdir(finished[0])
    found: dict[str, Any] = {}
    exec(re.sub("(?<=mnist/)[0-9a-f]{16}", published, shown), found)
    assert list(found["labels"]) == ["7"]
    probabilities = found["logits"].softmax(1).detach().numpy()
    assert np.allclose(probabilities, found["probabilities"], atol=1e-4)
    assert found["promoted"]


@pytest.mark.chromium
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_the_report_renders_without_console_errors(finished: tuple[Path, str], tmp_path: Path) -> None:
    report = Path(release(finished[0] / "retrain-store")["report"])
    picture = tmp_path / "report.png"
    assert screenshot(report, picture, width=1200, height=2600) == []
    with Image.open(picture) as image:
        assert len(set(image.convert("L").tobytes())) > 50  # neither blank nor an error page
    if "RETRAIN_UPDATE_DOCS" in os.environ:  # make docs
        shutil.copy(picture, DOCS / "report.png")
