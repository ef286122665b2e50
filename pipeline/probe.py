"""Held-out images -> each single-task network's dissimilarity matrices: what RSA compares.

K probe images, F features, D locations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.rsa import rdm
from models.sharing import SharedModel
from pipeline.config import Affinity
from pipeline.loading import Split

BATCH = 50


def probe_images(splits: Sequence[Split], count: int) -> Tensor:
    """Map held-out splits to K <= `count` images [K, 3, H, W], as evenly over the data sets as they allow."""
    taken = [0] * len(splits)
    for _ in range(min(count, sum(len(split) for split in splits))):
        open_ones = [index for index, split in enumerate(splits) if taken[index] < len(split)]
        taken[min(open_ones, key=lambda index: taken[index])] += 1
    # Rows at even distances: a split's order may be that of its classes.
    return torch.cat(
        [
            split.read([row * len(split) // number for row in range(number)]).images
            for split, number in zip(splits, taken, strict=True)
            if number
        ]
    )


@torch.inference_mode()
def task_rdms(network: SharedModel, task: str, images: Tensor, settings: Affinity, device: torch.device) -> Tensor:
    """Map a single-task network and probe images to its RDMs [D, K, K], features taken at the end of each block."""
    network = network.to(device).eval()
    parts = [network.features(batch.to(device), task) for batch in images.split(BATCH)]
    matrices = []
    for location, features in enumerate(zip(*parts, strict=True)):
        features_KF = torch.cat([_flat(feature.float(), settings.pool) for feature in features])
        if settings.centre:
            features_KF = features_KF - features_KF.mean(0)
        matrices.append(rdm(features_KF, name=f"task {task}, location {location + 1}").cpu())
    return torch.stack(matrices)


def _flat(feature: Tensor, pool: bool) -> Tensor:
    return feature.mean((2, 3)) if pool else feature.flatten(1)
