"""The report about a dataset."""

import base64
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.ingest.limits import LIMITS
from components.step import StepError
from components.storage import DirectoryStore
from tests.browser import CHROMIUM, MISSING, screenshot
from tests.components.evaluate.test_report import Elements
from tests.components.ingest.test_checks import similar
from tests.components.ingest.trees import classes, commit, make, noise, plant, prepare, split_classes

HOSTILE = ("<script>alert(1)<", "{{ 7 * 7 }} & ünï", "'onload=alert(2) x='")


def page(source: Path, store: DirectoryStore, folder: Path, limits: str = "", **options: Any) -> str:
    """The report about a source, which is refused or not."""
    plan = prepare(source, store, folder, **options)
    with contextlib.suppress(StepError):
        commit(plan, store, folder, limits=limits)
    text = (folder / "report").read_text()
    assert store.read(f"ingest/{plan}/report.html").decode() == text
    return text


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A source with a fault of every kind, and with names that want to be more than names."""
    files = split_classes(("cat", *HOSTILE))
    files[f"train/{HOSTILE[0]}/conflict.png"] = files["test/cat/0.png"]
    files["train/cat/leak.png"] = files["validation/cat/1.png"]
    files["train/cat/copy.png"] = files["train/cat/2.png"]
    files |= {"train/cat/like.png": similar(3, 0), "test/cat/like it.png": similar(3, 5)}
    files |= {"train/cat/like too.png": similar(3, 9)}
    for number in range(40):
        files[f"train/cat/{HOSTILE[1]}{number}.png"] = noise(number)[: 200 + number]
    files["test/cat/<b>empty.png"] = b""
    return plant(tmp_path / "source", files)


def test_the_page_loads_nothing_and_runs_nothing_whatever_the_names_are(
    faulty: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    text = page(faulty, store, tmp_path / "made")
    found = Elements(text)
    assert not found.named("script")
    assert not found.named("b<")
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert all(str(attributes.get(name, "data:")).startswith("data:") for name in ("src", "href"))
    (policy,) = (meta for meta in found.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    for name in HOSTILE:
        assert name in found.text


def test_a_refused_source_is_said_to_be_at_the_top_with_the_reasons(
    faulty: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    sentences = Elements(page(faulty, store, tmp_path / "made")).sentences
    assert re.search(r"Refused: dataset [0-9a-f]{12}, \d+ images of 4 classes Nothing was published: ", sentences)
    for reason in ("entries were quarantined", "images have two labels", "were in another split, too"):
        assert reason in sentences


def test_what_was_passed_over_is_shown_with_its_number(faulty: Path, store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(noise(77))
    (faulty / "train" / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    (faulty / "README").touch()
    sentences = Elements(page(faulty, store, tmp_path / "made")).sentences
    assert "passed over 2 files: 1 (symbolic link), 1 (none)" in sentences


def test_every_check_is_shown_with_its_limit_and_verdict(faulty: Path, store: DirectoryStore, tmp_path: Path) -> None:
    text = page(faulty, store, tmp_path / "made")
    for name in LIMITS:
        assert re.search(rf"<th scope=\"row\" title=\"[^\"]+\">{name}</th>", text)
    assert text.count(">kept</td>") + text.count(">not kept</td>") == len(LIMITS)
    assert text.count(">not kept</td>") == 3


def test_every_fault_has_examples_with_pictures_and_names(faulty: Path, store: DirectoryStore, tmp_path: Path) -> None:
    sentences = Elements(page(faulty, store, tmp_path / "made")).sentences
    for heading in (
        "One image, two labels",
        "One image, two splits",
        "Alike, in two splits",
        "One image, twice in a split",
        "Alike, in one split",
    ):
        assert heading in sentences
    for name in ("train/cat/leak.png", "validation/cat/1.png", "train/cat/copy.png", "test/cat/like it.png"):
        assert name in sentences


def test_the_pictures_can_be_seen_and_are_few(faulty: Path, store: DirectoryStore, tmp_path: Path) -> None:
    text = page(faulty, store, tmp_path / "made")
    pictures = Elements(text).named("img")
    assert 5 < len(pictures) <= 66
    for picture in pictures:
        assert picture["alt"]
        head, _, content = str(picture["src"]).partition(",")
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        assert max(Image.open(io.BytesIO(base64.b64decode(content))).size) <= 128
    assert len(text) < 300_000


def test_the_quarantine_shows_some_of_every_reason_and_counts_the_rest(
    faulty: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    sentences = Elements(page(faulty, store, tmp_path / "made")).sentences
    assert "16 of 41 entries, of every reason some." in sentences
    assert "truncated 40 ends too early" in sentences or "truncated40ends too early" in sentences
    assert "test/cat/<b>empty.png" in sentences


def test_a_dataset_that_is_appended_tells_its_lineage(store: DirectoryStore, tmp_path: Path) -> None:
    parent = make(plant(tmp_path / "old", classes()), store, tmp_path / "parent")
    source = plant(tmp_path / "new", classes(6, ("cat",), seed=77_000))
    sentences = Elements(page(source, store, tmp_path / "made", parent=parent.digest)).sentences
    assert f"parent {parent.digest[:12]}… in the parent 24 images appended 6 images" in sentences
    assert "30 in all" not in sentences
    assert "30 6 of them new" in sentences
    assert "+50.0 points" in sentences


def test_of_very_many_classes_the_largest_and_the_smallest_are_shown(store: DirectoryStore, tmp_path: Path) -> None:
    names = tuple(f"class {number:03}" for number in range(80))
    source = plant(tmp_path / "source", classes(3, names) | classes(4, ("big",), seed=500_000))
    text = page(source, store, tmp_path / "made")
    assert "The largest and the smallest classes, 60 of 81." in Elements(text).sentences
    assert '<th scope="row">big</th>' in text


def test_raw_images_have_pictures_too(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    found = Elements(page(idx_folder, store, tmp_path / "made"))
    assert "Published: dataset" in found.sentences
    for picture in found.named("img"):
        content = str(picture["src"]).partition(",")[2]
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (28, 28)


def test_a_source_without_a_single_usable_image_has_a_page(store: DirectoryStore, tmp_path: Path) -> None:
    source = plant(tmp_path / "source", {"cat/a.png": b"no image", "dog/b.png": b""})
    assert "Refused: dataset" in Elements(page(source, store, tmp_path / "made")).sentences


def test_tables_and_pictures_say_what_they_are_to_those_who_do_not_see_them(
    faulty: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    found = Elements(page(faulty, store, tmp_path / "made"))
    assert len(found.named("caption")) == len(found.named("table")) == 4
    assert all(header["scope"] in ("row", "col") for header in found.named("th"))
    assert found.named("html") == [{"lang": "en"}]


@pytest.mark.slow
@pytest.mark.chromium
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_the_report_renders_without_a_message_on_the_console(
    faulty: Path, store: DirectoryStore, tmp_path: Path, width: int, dark: bool
) -> None:
    html = tmp_path / "report.html"
    html.write_text(page(faulty, store, tmp_path / "made"))
    assert screenshot(html, tmp_path / "report.png", width, 3000, dark) == []
