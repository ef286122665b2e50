"""Loading against torchvision's ImageFolder on one thread.    python -m benchmarks.loading    (about two minutes)

Both sides read the same pictures, from JPEG files and from Arrow shards in a temporary folder, and give batches of 32
as normalised floats. The claims, without a cache: raw images of 64 px come at least 4 times as fast, cut from JPEGs
for a network of 224 px at least 2.5 times. There ImageFolder cuts 224 px out of files of 256; we store 224 and cut from
that, or, last, store 256 and give 256. "Cached" is a later epoch of a split that fits in memory.
"""

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.timing import Times, in_turn, ratio
from pipeline.artifacts import DatasetManifest, shards
from pipeline.config import Augment, Machine, load
from pipeline.datasets import SourceSettings
from pipeline.datasets.scenes import Scenes
from pipeline.loading import CACHE_BYTES, Feed, Split
from pipeline.preparing import declare, open_source, prepare_dataset

BATCH = 32
ImageFolderLoader = DataLoader[tuple[Tensor, Tensor]]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    torch.set_num_threads(1)
    print(f"loading: 1 thread, no worker processes, batches of {BATCH}; fastest epoch of each side, measured in turn")
    with TemporaryDirectory() as base:
        small, large = Path(base) / "small", Path(base) / "large"
        lines = _draw(small, 2000, 64)
        stored = {store: _store(small, lines, store, 64) for store in ("raw", "jpeg")}
        for title, crop in (("mirrored", 1.0), ("cropped and mirrored", 0.5)):
            ways = {
                "ImageFolder": _image_folder(small / "train", 64, crop),
                "raw": _feed(*stored["raw"], crop, 0),
                "JPEG": _feed(*stored["jpeg"], crop, 0),
                "cached JPEG": _feed(*stored["jpeg"], crop, CACHE_BYTES),
            }
            _compare(f"2,000 images of 64 px, {title}", ways, rounds=5)
        lines = _draw(large, 130, 256)
        raw, jpeg = (_store(large, lines, store, 224) for store in ("raw", "jpeg"))
        ways = {
            "ImageFolder": _image_folder(large / "train", 224, 0.5),
            "JPEG": _feed(*jpeg, 0.5, 0),
            "raw": _feed(*raw, 0.5, 0),
            "cached JPEG": _feed(*jpeg, 0.5, CACHE_BYTES),
            "JPEG of 256 px": _feed(*_store(large, lines, "jpeg", 256), 0.5, 0),
        }
        _compare("128 images of 256 px -> 224 px, cropped and mirrored", ways, rounds=5)


def _compare(title: str, ways: Mapping[str, ImageFolderLoader | Feed], *, rounds: int) -> None:
    loader = ways["ImageFolder"]
    assert isinstance(loader, DataLoader)
    images = len(loader) * BATCH
    times = in_turn({name: partial(_walk, way) for name, way in ways.items()}, rounds)
    theirs = times["ImageFolder"]
    print(f"{title}: " + "; ".join(f"{name} {_rate(taken, images, theirs)}" for name, taken in times.items()))


def _rate(taken: Times, images: int, theirs: Times) -> str:
    times = "" if taken is theirs else f" = {ratio(theirs, taken)} x"
    return f"{images / min(taken.wall):,.0f} images/s{times}"


def _draw(folder: Path, count: int, size: int) -> Path:
    """Draw pictures into an ImageFolder; the list of those very files is returned."""
    source = Scenes(SourceSettings(root=None, images=-(-count // 4), seed=0, size=(size, size)))
    scenes = [source.load(row).image for row in source.rows()]
    lines = [("image", "split", "group", "kind")]
    for number in range(count):
        split = {0: "val", 1: "test"}.get(number, "train")
        path = folder / split / f"class-{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        turned = np.rot90(scenes[number // 4], number % 4).copy()  # four pictures of one drawing
        Image.fromarray(turned).save(path, quality=95, subsampling=0)  # as `prepare` stores them
        lines.append((str(path.relative_to(folder)), split, str(number), path.parent.name))
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder / "list.csv"


def _store(folder: Path, lines: Path, store: str, size: int) -> tuple[DatasetManifest, Path]:
    """Prepare shards of a size from the listed files."""
    config = load()
    made = config.datasets["scenes"].model_copy(
        update={"reader": "manifest", "root": str(lines), "images": None, "size": (size, size)}
    )
    kept = config.prepare.model_copy(update={"store": store})
    config = config.model_copy(update={"datasets": {"made": made}, "prepare": kept})
    reader, machine, out = open_source("made", config, Machine()), Machine(), folder / f"{store}-{size}"
    return prepare_dataset(declare("made", config, reader), reader, config, machine, out, lambda _: None), out


def _image_folder(folder: Path, size: int, crop: float) -> ImageFolderLoader:
    cut = [transforms.RandomResizedCrop(size, scale=(crop**2, 1.0))] if crop < 1 else []
    steps = [*cut, transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return DataLoader(ImageFolder(str(folder), transforms.Compose(steps)), BATCH, shuffle=True, drop_last=True)


def _feed(manifest: DatasetManifest, folder: Path, crop: float, cache_bytes: int) -> Feed:
    split = Split(
        dataset="made",
        paths=shards("made", "train", folder),
        size=manifest.size,
        columns=manifest.columns,
        cache_bytes=cache_bytes,
    )
    return Feed(splits=[split], weights=[1.0], batches=[BATCH], augment=Augment(flip=0.5, crop=crop), seed=0)


def _walk(way: ImageFolderLoader | Feed) -> None:
    """One epoch: ImageFolder's transforms normalise, our batches are normalised as a network does it."""
    if isinstance(way, DataLoader):
        for _batch in way:
            pass
        return
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    for batch in way.loader(0, way.steps_per_epoch, workers=0, pin=False):
        batch.images.float().sub_(255 * mean).div_(255 * std)


if __name__ == "__main__":
    main()
