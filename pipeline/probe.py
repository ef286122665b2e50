"""Held-out images -> each single-task network's dissimilarity matrices: what RSA compares.

K probe images, F features, D locations, B batch.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional as F

from models.rsa import rdm
from models.sharing import SharedModel
from pipeline.config import Affinity
from pipeline.loading import Split

BATCH = 50


def probe_images(splits: Sequence[Split], count: int) -> Tensor:
    """Map held-out splits to K <= `count` images [K, 3, H, W], as evenly over the data sets as they allow.

    H and W are the largest of the splits, the size of the study's backbone; smaller images are stretched to it.
    """
    taken = [0] * len(splits)
    for _ in range(min(count, sum(len(split) for split in splits))):
        open_ones = [index for index, split in enumerate(splits) if taken[index] < len(split)]
        taken[min(open_ones, key=lambda index: taken[index])] += 1
    size = (max(split.size[0] for split in splits), max(split.size[1] for split in splits))
    # Rows at even distances: a split's order may be that of its classes.
    return torch.cat(
        [
            _stretched(split.read([row * len(split) // number for row in range(number)]).images, size)
            for split, number in zip(splits, taken, strict=True)
            if number
        ]
    )


def fewer_images(found: int, settings: Affinity) -> str:
    """What to say where the held-out images are fewer than asked for."""
    return (
        f"{found} probe images, all that validation has, in place of {settings.images}; affinities are less certain, as"
        " their intervals say. For more raise datasets.*.val"
    )


def _stretched(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Map uint8 images to uint8 images of a size, bilinearly."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images.float(), size, mode="bilinear", align_corners=False).round_().to(torch.uint8)


@torch.inference_mode()
def task_rdms(
    network: SharedModel, task: str, images: Tensor, settings: Affinity, device: torch.device, scratch: Path
) -> Tensor:
    """Map a single-task network and probe images to its RDMs [D, K, K], features taken at the end of each block.

    The features wait in files under `scratch`, which are gone at the end: 4 bytes x K x the features of all locations
    on disk, and in memory no more than a batch of images, a chunk of features and the RDMs.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scratch) as folder:
        paths = _write_features(Path(folder), network.to(device).eval(), task, images, settings.pool, device)
        matrices = [
            rdm(
                _mapped(path, len(images)),
                centre=settings.centre,
                device=device,
                name=f"task {task}, location {location}",
            )
            for location, path in enumerate(paths, start=1)
        ]
    return torch.stack(matrices).cpu()


def _write_features(
    folder: Path, network: SharedModel, task: str, images: Tensor, pool: bool, device: torch.device
) -> list[Path]:
    """One file per location, float32, one row of features after the other."""
    paths: list[Path] = []
    for batch in images.split(BATCH):
        features = network.features(batch.to(device), task)
        paths = [folder / f"location_{location}" for location in range(1, len(features) + 1)]
        for path, feature in zip(paths, features, strict=True):
            rows_BF = feature.float().mean((2, 3)) if pool else feature.float().flatten(1)
            with path.open("ab") as file:
                rows_BF.cpu().numpy().tofile(file)
    return paths


def _mapped(path: Path, rows: int) -> Tensor:
    """The float32 rows of a file, read from disk where they are used."""
    return torch.from_file(str(path), shared=True, size=path.stat().st_size // 4, dtype=torch.float32).view(rows, -1)
