"""Probe images: how many of which data set; their RDMs: the same as in memory, from files that don't stay."""

import mmap
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline import probe
from pipeline.config import Affinity
from pipeline.loading import Batch
from pipeline.probe import probe_images, task_rdms

CPU = torch.device("cpu")


@dataclass
class Numbered:
    """A split whose image i is full of the number base + i."""

    base: int
    length: int
    size: tuple[int, int] = (2, 2)

    def __len__(self) -> int:
        return self.length

    def read(self, rows: list[int]) -> Batch:
        values = torch.tensor([self.base + row for row in rows], dtype=torch.uint8)
        return Batch(dataset="numbered", images=values.view(-1, 1, 1, 1).expand(-1, 3, *self.size), labels={})


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


def test_images_of_a_smaller_size_are_stretched_to_the_largest() -> None:
    """Against PIL's bilinear, which rounds by its own rule."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3), dtype=np.uint8)
    splits = [Numbered(0, 3, (5, 3)), Painted(pixels), Numbered(100, 3, (2, 7))]
    drawn = probe_images(splits, 3)  # pyright: ignore[reportArgumentType]
    assert (drawn.dtype, drawn.shape) == (torch.uint8, (3, 3, 5, 7))
    assert (drawn[0] == 0).all()
    assert (drawn[2] == 100).all()
    expected = np.asarray(Image.fromarray(pixels).resize((7, 5), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(drawn[1, 0].int().numpy(), expected.astype(int), atol=1)


class Painted(Numbered):
    """A split of one image of given pixels."""

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__(0, 1, (pixels.shape[0], pixels.shape[1]))
        self.pixels = torch.from_numpy(pixels)

    def read(self, rows: list[int]) -> Batch:
        return Batch(dataset="painted", images=self.pixels.expand(len(rows), 3, -1, -1), labels={})


class Waves(nn.Module):
    """A network of two locations whose features [B, C, H, W] are waves over the image's first value."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def features(self, images: Tensor, task: str) -> list[Tensor]:
        assert task == "depth"
        phase = images[:, 0, 0, 0, None].float()
        waves = torch.linspace(0, 9, self.width).mul(phase).add_(phase).sin_().view(len(images), -1, 2, 2)
        return [waves, waves[:, ::2].square()]


def _images(number: int) -> Tensor:
    return torch.rand(number, 3, 2, 2, generator=torch.Generator().manual_seed(0)) + 0.1


def _task_rdms(network: Waves, images: Tensor, settings: Affinity, scratch: Path) -> Tensor:
    return task_rdms(network, "depth", images, settings, CPU, scratch)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("centre", [False, True])
def test_task_rdms_are_those_of_all_features_in_memory(tmp_path: Path, pool: bool, centre: bool) -> None:
    images, network = _images(2 * probe.BATCH + 3), Waves(40_000)
    result = _task_rdms(network, images, Affinity(pool=pool, centre=centre), tmp_path / "scratch")
    assert result.shape == (2, len(images), len(images))
    for features, matrix in zip(network.features(images, "depth"), result, strict=True):
        rows = features.double()
        rows = rows.mean((2, 3)) if pool else rows.flatten(1)
        rows = rows - rows.mean(0) if centre else rows
        np.testing.assert_allclose(matrix.numpy(), 1 - np.corrcoef(rows.numpy()), atol=1e-6)
    assert not list((tmp_path / "scratch").iterdir())


def test_task_rdms_names_task_location_and_image_and_leaves_no_file(tmp_path: Path) -> None:
    images = _images(6)
    images[4] = 0
    with pytest.raises(ValueError, match="task depth, location 1: the features of image 4 are constant"):
        _task_rdms(Waves(400), images, Affinity(), tmp_path)
    assert not list(tmp_path.iterdir())


@contextmanager
def _room_for(size: int) -> Iterator[None]:
    """Refuse more than `size` bytes of new memory to this process; files mapped into it don't count."""
    status = Path("/proc/self/status").read_text()
    used = 1024 * int(status.split("VmData:")[1].split()[0])
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux alone")
def test_task_rdms_takes_less_memory_than_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "BATCH", 5)
    images, width = _images(100), 400_000
    _task_rdms(Waves(400), images, Affinity(), tmp_path)  # libraries take their working memory once
    with _room_for(4 * len(images) * width // 2):
        assert len(_task_rdms(Waves(width), images, Affinity(), tmp_path)) == 2
        with pytest.raises(OSError, match="memory"):  # of the kernel: what torch freed before, it would use again
            mmap.mmap(-1, 4 * len(images) * width, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
