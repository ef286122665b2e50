"""Cityscapes' public layout, made small: 64 x 32 pixels where the set has 2048 x 1024."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (32, 64)  # height, width
FRAMES = {
    "train": [f"{city}_{number:06}_000019" for city in ("aachen", "zurich") for number in range(6)],
    "val": ["frankfurt_000000_000294", "frankfurt_000001_000538", "munster_000000_000019"],
    "test": ["berlin_000000_000019", "berlin_000001_000019"],
}
ROAD, BUILDING, SKY, PERSON, CAR, TRAILER = 7, 11, 23, 24, 26, 30


def plant(folder: Path) -> Path:
    """Make `leftImg8bit`, `gtFine` and `disparity` of train, val and test (whose labels are blank); gives the root."""
    for split, frames in FRAMES.items():
        for seed, frame in enumerate(frames):
            labels, instances = _scene(seed) if split != "test" else (np.zeros(SIZE, np.uint8),) * 2
            noise = np.random.default_rng(seed).integers(0, 40, (*SIZE, 3), dtype=np.uint8)
            _save(folder, "leftImg8bit", split, frame, "leftImg8bit", noise + 6 * labels[..., None])
            _save(folder, "gtFine", split, frame, "gtFine_labelIds", labels)
            _save(folder, "gtFine", split, frame, "gtFine_instanceIds", instances.astype(np.uint16))
            if split != "test":
                _save(folder, "disparity", split, frame, "disparity", _disparity(seed))
    return folder


def _scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Label ids, and instance ids as the set has them: class x 1000 + number, or the class where there is no number."""
    labels = np.full(SIZE, BUILDING, np.uint8)
    labels[:8], labels[20:], labels[30:] = SKY, ROAD, 1  # the last rows: ego vehicle
    instances = labels.astype(np.int64)
    boxes = {CAR * 1000: (4, 14), CAR * 1000 + 1: (14, 24), PERSON * 1000: (30, 34), TRAILER * 1000: (50, 60)}
    for value, (left, right) in boxes.items():
        shift = seed % 4
        labels[14:26, left + shift : right + shift] = value // 1000
        instances[14:26, left + shift : right + shift] = value
    labels[12:18, 40:46] = PERSON  # a group: no number
    instances[12:18, 40:46] = PERSON
    return labels, instances


def _disparity(seed: int) -> np.ndarray:
    """256 x the disparity + 1, near things below; 0 where none was found."""
    values = np.linspace(0, 100, SIZE[0])[:, None] + np.full(SIZE, seed % 3)
    stored = np.round(values * 256 + 1).astype(np.uint16)
    stored[:, :6] = 0
    return stored


def _save(folder: Path, kind: str, split: str, frame: str, ending: str, array: np.ndarray) -> None:
    path = folder / kind / split / frame.split("_")[0] / f"{frame}_{ending}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
