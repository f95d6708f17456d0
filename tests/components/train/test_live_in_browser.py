"""The page of a training, as a browser shows it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.train.live import render
from tests.browser import CHROMIUM, MISSING, screenshot
from tests.components.train.course import status
from tests.components.train.test_live import HOSTILE

pytestmark = [pytest.mark.chromium, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "width", "dark"), [("running", 1200, False), ("failed", 1200, True), ("finished", 390, False)]
)
def test_the_page_renders_without_a_message_on_the_console(tmp_path: Path, state: str, width: int, dark: bool) -> None:
    page, picture = tmp_path / "live.html", tmp_path / "live.png"
    page.write_text(render(status(state=state, title=HOSTILE, sentence=HOSTILE, hints=[HOSTILE])), encoding="utf-8")
    assert screenshot(page, picture, width, 1600, dark) == []
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape == (1600, width, 3)
    assert (pixels[2, 2].max() < 64) == dark
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100  # text and lines, not an empty page
