"""The page of a training, as HTML."""

import math
import re
from html.parser import HTMLParser

import pytest

from components.chart import Chart
from components.progress import Figure
from components.train.live import charts, figures, headline, render
from tests.components.train.course import points, row, status

REFRESH = '<meta http-equiv="refresh" content="10">'
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)>"


class Reader(HTMLParser):
    """The text of a page, and the tags in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags = "", list[str]()
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.text += " " if tag in ("dd", "p", "li") else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def text(page: str) -> str:
    return Reader(page).text


def test_a_training_that_runs_says_how_far_it_is_and_is_loaded_again() -> None:
    page = render(status())
    assert "Running: epoch 4 of 12, 28%, 12 min left" in text(page)
    assert REFRESH in page
    assert "where that is minutes ago, the training was killed or its store cannot be reached" in text(page)


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_a_training_that_is_over_is_not_loaded_again(state: str) -> None:
    page = render(status(state=state))
    assert "refresh" not in page
    assert "minutes ago" not in page


def test_a_failure_is_told_in_its_own_words() -> None:
    sentence = "loss is nan in epoch 4/12, batch 40, at learning rate 0.006; try a smaller --learning-rate"
    page = render(status(state="failed", sentence=sentence))
    assert f"Failed: epoch 4 of 12, 28% {sentence}" in text(page)


def test_the_page_has_the_figures_the_notes_and_the_hints() -> None:
    found = text(render(status(hints=["31% of the time is spent waiting"])))
    assert "Best accuracy 90.00 % after epoch 3 Speed 18,040 images a second Loss 0.0312 Memory 1,812 MiB" in found
    assert "Hint 31% of the time is spent waiting" in found
    assert "Notes batch size 256, the largest that fits" in found
    assert "Hint" not in text(render(status()))


def test_whatever_comes_from_outside_is_shown_as_text() -> None:
    hostile = status(title=HOSTILE, state="failed", sentence=HOSTILE, notes=[HOSTILE], hints=[HOSTILE])
    page = Reader(render(hostile))
    assert not {"script", "img"} & {*page.tags}
    assert page.text.count("alert(1)") == 5


def test_the_page_loads_nothing() -> None:
    page = render(status())
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import""", page)
    assert "default-src 'none'" in page


def test_the_curves_are_drawn_over_the_same_epochs() -> None:
    drawn = {name: chart for name, chart in charts(status()).items() if chart}
    assert {name: [line.name for line in chart.lines] for name, chart in drawn.items()} == {
        "Loss (logarithmic)": ["train", "validation"],
        "Validation accuracy": ["validation"],
        "Learning rate": ["train"],
        "Images a second": ["train"],
    }
    assert len({chart.x_ticks for chart in drawn.values()}) == 1
    train, validation = drawn["Loss (logarithmic)"].lines
    assert len(train.points) == 170
    assert train.points[-1][0] == pytest.approx(Chart.right)
    assert validation.points[-1][0] == pytest.approx(Chart.left + 3 / 3.39 * (Chart.right - Chart.left))


def test_before_the_first_batch_there_is_a_page_already() -> None:
    beginning = status(0, points=[], curve=[], figures=[], images_per_second=0.0, seconds_left=math.inf, share=0.0)
    assert set(charts(beginning).values()) == {None}
    assert headline(beginning) == "epoch 1 of 12, 0%"
    assert text(render(beginning)).count("nothing yet") == 4


def test_before_the_first_validation_the_loss_is_drawn() -> None:
    drawn = charts(status(0))
    assert drawn["Validation accuracy"] is None
    assert drawn["Loss (logarithmic)"]
    assert "Best accuracy" not in figures(status(0))


def test_where_the_points_were_lost_the_epochs_are_drawn() -> None:
    drawn = charts(status(points=[]))["Loss (logarithmic)"]
    assert drawn
    assert [len(line.points) for line in drawn.lines] == [3, 3]


def test_what_is_no_number_is_not_drawn() -> None:
    wild = points([1, 2, 3])
    wild[1].values["train/loss"] = math.nan  # type: ignore[index]
    drawn = charts(status(points=wild, curve=[row(1), row(2, validation_loss=math.inf)]))["Loss (logarithmic)"]
    assert drawn
    assert [len(line.points) for line in drawn.lines] == [2, 1]


def test_figures_keep_the_names_that_people_know() -> None:
    named = figures(status(figures=[Figure("GPU memory", "812", "MiB"), Figure("data wait", "1%")]))
    assert {"GPU memory", "Data wait"} <= named.keys()
