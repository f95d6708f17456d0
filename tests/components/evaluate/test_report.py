import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from components.evaluate.report import MATRIX_CLASSES, Mistake, matrix, render, said
from tests.components.evaluate import example

HOSTILE = ("<script>alert(1)</script>", '"><img src=http://evil.example/x onerror=alert(1)>', "{{ 7 * 7 }} & ünï")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.text += " " * (tag in ("dt", "dd", "h1", "p", "small"))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def sentences(self) -> str:
        return " ".join(self.text.split())


@pytest.mark.parametrize("classes", [("cat", "dog", "zebra"), HOSTILE])
def test_the_page_loads_nothing_and_runs_nothing_whatever_the_classes_are_called(classes: tuple[str, ...]) -> None:
    page = Elements(example.page(classes))
    assert not page.named("script")
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert all(str(attributes.get(name, "data:")).startswith("data:") for name in ("src", "href"))
    styles = re.search(r"<style>(.*)</style>", example.page(classes), re.DOTALL)
    assert styles is not None
    assert "url(" not in styles[1]
    assert "@import" not in styles[1]


def test_hostile_class_names_are_shown_as_they_are() -> None:
    page = Elements(example.page(HOSTILE))
    for name in HOSTILE:
        assert name in page.text


def test_the_verdict_stands_in_one_line_at_the_top() -> None:
    assert "Accepted: 96.0 % test accuracy, champion 95.3 %" in Elements(example.page()).sentences


@pytest.mark.parametrize("champion", [None, {"version": 3, "accuracy": None}])
def test_without_a_champion_to_compare_with_the_line_has_the_accuracy_alone(champion: dict[str, object] | None) -> None:
    verdict = example.verdict(accepted=False, champion=champion)
    page = render("animals", verdict, example.manifest(), example.config(), example.curve(1), [])
    assert "Rejected: 96.0 % test accuracy The test accuracy of" in Elements(page).sentences


def test_every_reason_is_said() -> None:
    sentences = Elements(example.page()).sentences
    for reason in example.verdict().reasons:
        assert reason in sentences


def test_the_facts_of_data_model_training_and_times_are_there() -> None:
    sentences = Elements(example.page()).sentences
    for fact in (
        *("source /data/animals", "train images 1,350", "test images 150", "image 28 x 28 x 1", "digest abababababab…"),
        *("architecture lenet5", "activation relu", "bias yes", "parameters 60,000"),
        *("epochs 3", "seed 7", "images per second 18,234"),
        *("ingest 3.2 s", "train 45.1 s", "evaluate 1.9 s"),
    ):
        assert fact in sentences


def test_a_model_trained_on_another_dataset_is_said_to_be() -> None:
    assert "model trained on" not in Elements(example.page()).sentences
    config = example.config(dataset="ef" * 32)
    page = render("animals", example.verdict(), example.manifest(), config, example.curve(3), [])
    assert "model trained on efefefefefef…" in Elements(page).sentences


def test_every_image_drawing_and_table_says_what_it_is_to_those_who_do_not_see_it() -> None:
    page = Elements(example.page())
    assert all(image["alt"] == "An image of class cat that was taken for dog" for image in page.named("img"))
    labels = [svg.get("aria-label") for svg in page.named("svg") if "aria-hidden" not in svg]
    assert labels == [
        "Accuracy by epoch: validation from 90 % to 96.67 %.",
        "Loss (logarithmic) by epoch: validation from 0.4 to 0.133, train from 0.5 to 0.167.",
    ]
    assert len(page.named("caption")) == len(page.named("table")) == 2
    assert all(header["scope"] in ("row", "col") for header in page.named("th"))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_mistake_is_shown_pixel_by_pixel(channels: int, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 30, channels), dtype=np.uint8)
    uri = Mistake(pixels, "cat", "dog", 0.9).data_uri
    picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert picture.mode == mode
    assert np.array_equal(np.asarray(picture).reshape(pixels.shape), pixels)


def test_a_large_image_becomes_a_thumbnail() -> None:
    uri = Mistake(np.zeros((300, 600, 3), np.uint8), "cat", "dog", 0.9).data_uri
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (128, 64)


def test_a_model_without_mistakes_and_with_a_single_epoch_has_a_page() -> None:
    verdict = example.verdict(confusion=np.diag([50, 50, 50]))
    page = render("animals", verdict, example.manifest(), example.config(), example.curve(1), [])
    assert "None: every test image was predicted rightly." in Elements(page).sentences


def test_the_heat_of_a_mistake_grows_with_its_count_and_right_answers_have_none() -> None:
    rows = matrix(example.verdict())
    assert [cell.count for cell in rows["zebra"]] == [1, 3, 46]
    assert [cell.right for cell in rows["zebra"]] == [False, False, True]
    assert [cell.heat for cell in rows["zebra"]] == [pytest.approx(3**-0.5, abs=1e-3), 1.0, 0.0]


def test_of_very_many_classes_those_with_the_most_mistakes_are_shown() -> None:
    names = tuple(f"class {index}" for index in range(100))
    confusion = np.eye(100, dtype=int) * 9
    confusion[97, 3] = 5
    verdict = example.verdict(names, confusion)
    rows = matrix(verdict)
    assert len(rows) == MATRIX_CLASSES
    assert {"class 97", "class 3"} < set(rows)
    page = render("animals", verdict, example.manifest(names), example.config(names), example.curve(3), [])
    assert "The 30 classes with the most mistakes of 100." in Elements(page).sentences


def test_the_page_stays_small() -> None:
    assert len(example.page()) < 100_000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        *((True, "yes"), (False, "no"), (256, "256"), (60000, "60,000"), (0.003, "0.003"), (18234.2, "18,234")),
        *(("relu", "relu"), ((0.1307, 0.5), "0.1307, 0.5"), (1e-7, "1e-07")),
    ],
)
def test_facts_are_written_as_people_write_them(value: object, words: str) -> None:
    assert said(value) == words
