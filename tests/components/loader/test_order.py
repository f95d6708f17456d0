"""The claims of the order, for all that could be dealt."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.dataset.manifest import Shard
from components.loader.order import Order
from tests.components.loader.samples import shard

shards = st.lists(st.builds(shard, st.integers(0, 9), st.integers(1, 50)), min_size=1, max_size=8)
windows = st.integers(1, 200)
batch_sizes = st.integers(1, 7)
seeds = st.none() | st.integers(0, 2**64)
ranks = st.integers(1, 12)

Image = tuple[int, int]
"""The number of its shard, and its place there."""


def images(order: Order, epoch: int = 1, start: int = 0) -> list[Image]:
    """All of an epoch after the first `start`."""
    found: list[Image] = []
    for window in order.windows(epoch, start):
        here = list(zip(window.shards.tolist(), window.rows.tolist(), strict=True))
        found += here[max(0, start - window.start) :]
    return found


def everything(order: Order) -> list[Image]:
    return [(number, row) for number, count in enumerate(order.images.tolist()) for row in range(count)]


@given(shards, windows, batch_sizes, seeds, ranks, st.integers(0, 5))
def test_each_image_is_in_an_epoch_exactly_once(
    shards: list[Shard], window: int, batch_size: int, seed: int | None, ranks: int, epoch: int
) -> None:
    orders = [Order(shards, window, batch_size, seed, rank, ranks) for rank in range(ranks)]
    assert sorted(image for order in orders for image in images(order, epoch)) == everything(orders[0])


@given(shards, windows, batch_sizes, seeds, ranks)
def test_ranks_have_as_many_batches_and_nearly_as_many_images(
    shards: list[Shard], window: int, batch_size: int, seed: int | None, ranks: int
) -> None:
    orders = [Order(shards, window, batch_size, seed, rank, ranks) for rank in range(ranks)]
    assert len({order.batches for order in orders}) == 1
    counts = [len(order) for order in orders]
    assert max(counts) - min(counts) <= 1
    for order in orders:
        assert len(images(order)) == len(order)
        starts = [order.start(number) for number in range(order.batches + 1)]
        assert (starts[0], starts[-1]) == (0, len(order))
        sizes = [last - first for first, last in pairwise(starts)]
        assert all(size == batch_size for size in sizes[:-2])
        assert all(0 <= size <= batch_size for size in sizes)
        if batch_size > 1 and min(counts):
            assert all(sizes)


@given(shards, windows, batch_sizes, seeds, ranks, st.integers(1, 4))
def test_every_rank_knows_how_many_images_a_batch_has_on_all_of_them(
    shards: list[Shard], window: int, batch_size: int, seed: int | None, ranks: int, least: int
) -> None:
    orders = [Order(shards, window, batch_size, seed, rank, ranks, least=least) for rank in range(ranks)]
    for number in range(orders[0].batches):
        sizes = [order.start(number + 1) - order.start(number) for order in orders]
        assert {order.count(number) for order in orders} == {sum(sizes)}
        assert min(sizes) == sum(sizes) // ranks


@given(shards, windows, batch_sizes, seeds, ranks, st.data())
def test_the_rest_of_an_epoch_is_what_would_have_come(
    shards: list[Shard], window: int, batch_size: int, seed: int | None, ranks: int, data: st.DataObject
) -> None:
    order = Order(shards, window, batch_size, seed, data.draw(st.integers(0, ranks - 1)), ranks)
    start = data.draw(st.integers(0, len(order)))
    assert images(order, 3, start) == images(order, 3)[start:]


@given(shards, windows, ranks)
def test_each_rank_reads_shards_of_its_own_and_two_at_its_borders(shards: list[Shard], window: int, ranks: int) -> None:
    read = [
        {number for number, _ in images(Order(shards, window, 1, seed=5, rank=rank, ranks=ranks))}
        for rank in range(ranks)
    ]
    for rank, mine in enumerate(read):
        others = set().union(*read[:rank], *read[rank + 1 :])
        assert len(mine & others) <= 2


@pytest.mark.slow
@given(shards, windows, batch_sizes, st.integers(0, 2**64), st.integers(0, 9))
def test_seed_and_epoch_decide_the_order(
    shards: list[Shard], window: int, batch_size: int, seed: int | None, epoch: int
) -> None:
    first, again = (Order(shards, window, batch_size, seed) for _ in range(2))
    assert images(first, epoch) == images(again, epoch)


@given(shards, windows, ranks)
def test_windows_are_no_larger_than_they_may_be(shards: list[Shard], window: int, ranks: int) -> None:
    order = Order(shards, window, 1, seed=0, rank=0, ranks=ranks)
    for found in order.windows(0):
        numbers = set(found.shards.tolist())
        assert len(numbers) == 1 or sum(order.weights[list(numbers)]) <= window // ranks


def test_another_seed_or_epoch_is_another_order() -> None:
    def order(seed: int, epoch: int) -> list[Image]:
        return images(Order([shard(50)] * 4, 100, 8, seed), epoch)

    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_images_are_mixed_across_the_shards_of_a_window() -> None:
    shards = [shard(100, bytes=10)] * 8
    first, *_ = Order(shards, 40, 8, seed=0).windows(0)
    assert len(first) == 400
    assert len(set(first.shards[:100].tolist())) == 4


def test_without_a_seed_images_come_as_they_lie_and_excluded_ones_do_not() -> None:
    order = Order([shard(2), shard(0), shard(3, excluded=(0, 4))], 1, 2)
    assert images(order) == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
