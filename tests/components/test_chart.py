import pytest

from components.chart import Chart, decades, line_chart, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.977, 0.9941, [0.975, 0.98, 0.985, 0.99, 0.995]),
        (1, 12, [0, 2, 4, 6, 8, 10, 12]),
        (0, 0.31, [0, 0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_ticks_are_round_numbers_that_reach_around_the_data(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 5 if high < 12 else 8) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 0.9941, 1e-6, 2.3, 1e6])
def test_ticks_reach_around_a_single_value(value: float) -> None:
    marks = ticks(value, value, 5)
    assert len(marks) >= 2
    assert marks[0] <= value <= marks[-1]
    assert marks == sorted(set(marks))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.034, 1.2, [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]),
        (0.5, 0.5, [0.5, 1]),
        (0.1, 1, [0.1, 0.2, 0.5, 1]),
        (3e-6, 1.2, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10]),
    ],
)
def test_logarithmic_ticks_are_round_numbers_that_reach_around_the_data(
    low: float, high: float, expected: list[float]
) -> None:
    assert decades(low, high) == expected


def chart(logarithmic: bool = False, **series: list[tuple[float, float]]) -> Chart:
    return line_chart("Loss", series, logarithmic, say=str)


def test_a_line_runs_from_the_first_epoch_at_the_left_to_the_last_at_the_right() -> None:
    (line,) = chart(train=[(1, 1.0), (2, 0.5), (3, 0.0)]).lines
    middle = (Chart.left + Chart.right) / 2, (Chart.top + Chart.bottom) / 2
    assert line.points == [(Chart.left, Chart.top), pytest.approx(middle), (Chart.right, Chart.bottom)]
    assert line.path == "M56.0 10.0 L244.0 111.0 L432.0 212.0"


def test_epochs_are_marked_by_whole_numbers_alone() -> None:
    assert [tick.label for tick in chart(train=[(1, 0.3), (2, 0.2), (3, 0.1)]).x_ticks] == ["1", "2", "3"]
    assert [tick.label for tick in chart(train=[(1, 0.3)]).x_ticks] == ["1", "2"]


def test_lines_share_their_axes() -> None:
    train, validation = chart(train=[(1, 1.0), (2, 0.5)], validation=[(1, 0.5), (2, 0.25)]).lines
    assert train.points[1][1] == validation.points[0][1]


def test_on_a_logarithmic_axis_equal_factors_are_equally_far_apart() -> None:
    (line,) = chart(logarithmic=True, train=[(1, 0.1), (2, 0.01), (3, 0.001)]).lines
    (_, top), (_, middle), (_, bottom) = line.points
    assert top - middle == pytest.approx(middle - bottom)


def test_a_loss_of_zero_is_drawn_on_a_linear_axis() -> None:
    drawn = chart(logarithmic=True, train=[(1, 0.1), (2, 0.0)])
    assert drawn.y_ticks[0].label == "0.0"


def test_charts_beside_each_other_may_reach_over_the_same_epochs() -> None:
    drawn = line_chart("Loss", {"train": [(1, 1.0), (2, 0.5)]}, False, say=str, span=(0, 4))
    quarter = (Chart.right - Chart.left) / 4
    assert [x for x, _ in drawn.lines[0].points] == [Chart.left + quarter, Chart.left + 2 * quarter]
    assert [tick.label for tick in drawn.x_ticks] == ["0", "1", "2", "3", "4"]
