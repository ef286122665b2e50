"""Any draw is found at once, and is the one that a walk through all draws before it finds."""

import pickle
import sys
import time
from collections.abc import Sequence

import pytest
import torch

from pipeline.draws import BLOCK, Draws, generator

WEIGHTS = [(1.0, 1.0), (3.0, 1.0, 0.5), (0.02, 0.18), (5.0,)]


def walked(weights: Sequence[float], seed: int, count: int) -> list[tuple[int, int]]:
    """The data set of every draw from the first on, and how often it was taken before."""
    turns, draws = [0] * len(weights), []
    for block in range(-(-count // BLOCK)):
        source, chances = generator(seed, 0, block), torch.tensor(weights, dtype=torch.float64)
        for which in torch.multinomial(chances, BLOCK, replacement=True, generator=source).tolist():
            draws.append((which, turns[which]))
            turns[which] += 1
    return draws[:count]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_jump_is_a_walk(weights: Sequence[float]) -> None:
    expected = walked(weights, 7, 3 * BLOCK)
    order = Draws(weights, 7)
    assert [order.dataset(number) for number in range(0, 3 * BLOCK, 17)] == expected[::17]
    for number in (2 * BLOCK + 5, 3, BLOCK, BLOCK - 1, 3 * BLOCK - 1, 0):
        assert Draws(weights, 7).dataset(number) == order.dataset(number) == expected[number]


@pytest.mark.parametrize("count", [1, 4, 10])
def test_rows_are_those_of_a_fresh_order_for_each_walk(count: int) -> None:
    order, length, walks = Draws([1.0, 1.0], 3), 10, []
    for walk in range(3):
        drawn = torch.randperm(length, generator=generator(3, 1, 1, walk)).tolist()
        turns = range(walk * (length // count), (walk + 1) * (length // count))
        rows = [row for turn in turns for row in order.rows(1, length, turn, count)]
        assert rows == drawn[: len(rows)]
        walks.append(rows)
    assert walks[0] != walks[1] != walks[2]
    assert order.rows(1, length, 0, count) == walks[0][:count]


def test_far_draws_take_neither_long_nor_much() -> None:
    """Step 200,000 of 96 draws each: the first draw there within seconds, those after it at once."""
    order, number = Draws([1.0, 2.0, 0.3], 0), 200_000 * 96
    started = time.process_time()
    which, turn = order.dataset(number)
    assert time.process_time() - started < 10
    assert turn == pytest.approx(number * (1.0, 2.0, 0.3)[which] / 3.3, rel=0.01)
    started = time.process_time()
    for later in range(number + 1, number + 97):
        order.dataset(later)
    assert time.process_time() - started < 0.5
    assert sys.getsizeof(pickle.dumps(order)) < 10 << 20


def test_generators_of_neighbouring_places_are_unrelated() -> None:
    """No two of many places share a stream, and their first numbers are spread evenly."""
    places = [(seed, kind, step) for seed in range(8) for kind in range(3) for step in range(40)]
    first = torch.stack([torch.rand(2, generator=generator(*words)) for words in places])
    assert len({tuple(pair) for pair in first.tolist()}) == len(places)
    assert first.mean(0) == pytest.approx([0.5, 0.5], abs=0.04)
