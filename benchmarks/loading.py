"""Loading against torchvision's ImageFolder on one thread.    python -m benchmarks.loading    (about a minute)

Both sides read the same pictures, from JPEG files and from Arrow shards in a temporary folder, and give batches of 64
as normalised floats. The claim: without a cache at least twice the images a second. "First" is an epoch that fills the
cache, "later" one that uses it. In the second case ImageFolder cuts 224 px out of 256; we store 224 and cut from that.
"""

import csv
from collections.abc import Callable
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

BATCH = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    torch.set_num_threads(1)
    print(f"loading: 1 thread, no worker processes, batches of {BATCH}; fastest epoch of each side, measured in turn")
    with TemporaryDirectory() as folder:
        _compare("2,000 images of 64 px, mirrored", Path(folder) / "small", 2000, 64, 64, crop=1.0, rounds=5)
        _compare("128 images of 256 px -> 224 px, cropped", Path(folder) / "large", 130, 256, 224, crop=0.5, rounds=3)


def _compare(title: str, folder: Path, count: int, drawn: int, size: int, *, crop: float, rounds: int) -> None:
    manifest = _make(folder, count, drawn, size)
    images = manifest.counts["train"] // BATCH * BATCH
    ways: dict[str, Callable[[], object]] = {
        "ImageFolder": partial(_walk, _image_folder(folder / "train", size, crop)),
        "uncached": partial(_walk_feed, _feed(manifest, folder, crop, 0)),
        "first": lambda: _walk_feed(_feed(manifest, folder, crop, CACHE_BYTES)),
        "later": partial(_walk_feed, _feed(manifest, folder, crop, CACHE_BYTES)),
    }
    times = in_turn(ways, rounds)
    theirs = times["ImageFolder"]
    print(f"{title}: " + "; ".join(f"{name} {_rate(taken, images, theirs)}" for name, taken in times.items()))


def _rate(taken: Times, images: int, theirs: Times) -> str:
    times = "" if taken is theirs else f" = {ratio(theirs, taken)} x"
    return f"{images / min(taken.wall):,.0f} images/s{times}"


def _make(folder: Path, count: int, drawn: int, size: int) -> DatasetManifest:
    """Draw pictures into an ImageFolder, and prepare shards of `size` from those very files."""
    source = Scenes(SourceSettings(root=None, images=-(-count // 4), seed=0, size=(drawn, drawn)))
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
    config = load()
    made = config.datasets["scenes"].model_copy(
        update={"reader": "manifest", "root": str(folder / "list.csv"), "images": None, "size": (size, size)}
    )
    config = config.model_copy(update={"datasets": {"made": made}})
    reader, machine = open_source("made", config, Machine()), Machine()
    return prepare_dataset(declare("made", config, reader), reader, config, machine, folder / "shards", lambda _: None)


def _image_folder(folder: Path, size: int, crop: float) -> DataLoader[tuple[Tensor, Tensor]]:
    cut = [transforms.RandomResizedCrop(size, scale=(crop**2, 1.0))] if crop < 1 else []
    steps = [*cut, transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return DataLoader(ImageFolder(str(folder), transforms.Compose(steps)), BATCH, shuffle=True, drop_last=True)


def _feed(manifest: DatasetManifest, folder: Path, crop: float, cache_bytes: int) -> Feed:
    split = Split(
        dataset="made",
        paths=shards("made", "train", folder / "shards"),
        size=manifest.size,
        columns=manifest.columns,
        cache_bytes=cache_bytes,
    )
    return Feed(splits=[split], weights=[1.0], batches=[BATCH], augment=Augment(flip=0.5, crop=crop), seed=0)


def _walk(loader: DataLoader[tuple[Tensor, Tensor]]) -> None:
    """One epoch of ImageFolder, whose transforms normalise."""
    for _batch in loader:
        pass


def _walk_feed(feed: Feed) -> None:
    """One epoch of ours, normalised by the batch as a network does it."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    for batch in feed.loader(0, feed.steps_per_epoch, workers=0, pin=False):
        batch.images.float().sub_(255 * mean).div_(255 * std)


if __name__ == "__main__":
    main()
