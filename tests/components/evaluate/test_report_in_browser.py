from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, MISSING, screenshot
from tests.components.evaluate import example
from tests.components.evaluate.test_report import HOSTILE

pytestmark = [pytest.mark.chromium, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "dark"), [(1200, 2000, False), (1200, 2000, True), (390, 3600, False)])
def test_the_report_renders_without_a_message_on_the_console(
    tmp_path: Path, width: int, height: int, dark: bool
) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(example.page(HOSTILE))
    assert screenshot(page, picture, width, height, dark) == []
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.shape == (height, width)
    assert (pixels[2, 2] < 64) == dark
    assert len(np.unique(pixels)) > 100  # text, lines and pictures, not an empty page


@pytest.mark.slow
def test_a_script_that_fails_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>throw new Error('seen')</script>")
    (message,) = screenshot(page, tmp_path / "page.png", 400, 300)
    assert "seen" in message


@pytest.mark.slow
def test_whatever_slipped_into_the_page_would_be_refused_by_its_policy(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    slipped = "<script>alert(1)</script><img src='http://evil.example/x'><p onclick='alert(2)'>"
    page.write_text(example.page().replace("</main>", slipped + "</main>"))
    messages = screenshot(page, tmp_path / "report.png", 400, 300)
    assert len(messages) == 3  # the script, the image and the handler
    assert all("Content Security Policy" in message for message in messages)
