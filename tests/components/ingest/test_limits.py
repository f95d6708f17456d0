"""The parameter `limits`."""

import pytest

from components.ingest.limits import LIMITS, read_limits
from components.step import UserError


def test_without_any_the_defaults_hold() -> None:
    assert read_limits("") == {name: limit.default for name, limit in LIMITS.items()}


def test_those_that_are_given_take_the_place_of_the_defaults() -> None:
    limits = read_limits(" damaged=0.05\n leaks=0  min_images=20")
    assert (limits["damaged"], limits["leaks"], limits["min_images"]) == (0.05, 0, 20)
    assert limits["conflicts"] == LIMITS["conflicts"].default


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("damage=1", "unknown limit 'damage'; did you mean 'damaged'? (choices: damaged, conflicts, leaks, "),
        ("xyz=1", "unknown limit 'xyz'; choices: damaged, "),
        ("damaged", "limits must be pairs such as 'damaged=0.05 leaks=0', each name once, not 'damaged'"),
        (
            "leaks=0 leaks=1",
            "limits must be pairs such as 'damaged=0.05 leaks=0', each name once, not 'leaks=0 leaks=1'",
        ),
        ("damaged=1.5", "limit damaged must be a share from 0 to 1, not '1.5'"),
        ("damaged=-0.1", "limit damaged must be a share from 0 to 1, not '-0.1'"),
        ("damaged=nan", "limit damaged must be a share from 0 to 1, not 'nan'"),
        ("damaged=5%", "limit damaged must be a share from 0 to 1, not '5%'"),
        ("damaged=", "limit damaged must be a share from 0 to 1, not ''"),
        ("min_images=1.5", "limit min_images must be a whole number of images, 0 or more, not '1.5'"),
        ("min_images=-1", "limit min_images must be a whole number of images, 0 or more, not '-1'"),
    ],
)
def test_what_is_no_limit_is_refused_with_what_it_must_be(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        read_limits(text)
    assert str(refused.value).startswith(sentence)


def test_every_limit_says_what_it_is() -> None:
    assert all(limit.meaning for limit in LIMITS.values())
