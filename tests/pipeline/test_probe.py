"""Probe images: how many of which data set."""

from dataclasses import dataclass

import pytest
import torch

from pipeline.loading import Batch
from pipeline.probe import probe_images


@dataclass
class Numbered:
    """A split whose image i is full of the number base + i."""

    base: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self, rows: list[int]) -> Batch:
        values = torch.tensor([self.base + row for row in rows], dtype=torch.uint8)
        return Batch(dataset="numbered", images=values.view(-1, 1, 1, 1).expand(-1, 3, 2, 2), labels={})


@pytest.mark.parametrize(
    ("lengths", "count", "expected"),
    [((50, 50), 20, (10, 10)), ((4, 50), 20, (4, 16)), ((4, 5), 20, (4, 5)), ((50,), 7, (7,))],
)
def test_images_are_drawn_evenly_over_the_data_sets(
    lengths: tuple[int, ...], count: int, expected: tuple[int, ...]
) -> None:
    splits = [Numbered(100 * index, length) for index, length in enumerate(lengths)]
    drawn = probe_images(splits, count)[:, 0, 0, 0].tolist()  # pyright: ignore[reportArgumentType]
    assert tuple(sum(value // 100 == index for value in drawn) for index in range(len(lengths))) == expected
    assert len(set(drawn)) == len(drawn)


def test_rows_are_spread_over_a_split_since_its_order_may_be_that_of_its_classes() -> None:
    drawn = probe_images([Numbered(0, 100)], 10)[:, 0, 0, 0].tolist()  # pyright: ignore[reportArgumentType]
    assert drawn == list(range(0, 100, 10))
