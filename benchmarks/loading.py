"""Loading against torchvision's ImageFolder on one thread.    python -m benchmarks.loading    (three minutes)

Both sides read the same pictures, from JPEG files and from Arrow shards in a temporary folder, and give batches of 32
as normalised floats; the pictures that both give, uncut, are the same. Nothing is cached, but for "cached": a later
epoch of a split that fits in memory. For a network of 224 px, ImageFolder cuts those out of files of 256; ours stores
224 and cuts from that or, last, stores 256 and gives 256. "Decoding alone" is what no loader of such files can beat.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from torchvision.io import decode_jpeg

from benchmarks.lines import Goal, Line, faster, note, show
from benchmarks.timing import in_turn
from pipeline.artifacts import DatasetManifest, shards
from pipeline.config import Augment, load
from pipeline.datasets import SourceSettings
from pipeline.datasets.scenes import Scenes
from pipeline.loading import CACHE_BYTES, Feed, Split, in_order
from pipeline.machine import Machine
from pipeline.preparing import declare, open_source, prepare_dataset

BATCH = 32
ROUNDS = 7
LEVELS = 3  # of 255 by which pictures may differ on average
IMAGE_FOLDER = "ImageFolder, PIL, DataLoader"
ImageFolderLoader = DataLoader[tuple[Tensor, Tensor]]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def lines() -> Iterator[Line]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as base:
        yield from _small(Path(base) / "small")
        yield from _large(Path(base) / "large")


def _small(folder: Path) -> Iterator[Line]:
    files = _draw(folder, 2000, 64)
    stored = {store: _store(folder, files, store, 64) for store in ("raw", "jpeg")}
    _agree(folder / "train", *stored["jpeg"])
    for title, crop in (("mirrored", 1.0), ("cropped and mirrored", 0.5)):
        ways = {
            IMAGE_FOLDER: _image_folder(folder / "train", 64, crop),
            "raw": _feed(*stored["raw"], crop, 0),
            "JPEG": _feed(*stored["jpeg"], crop, 0),
            "cached JPEG": _feed(*stored["jpeg"], crop, CACHE_BYTES),
        }
        yield from _compared(f"2,000 images of 64 px, {title}", ways, {"raw": Goal(least=5)})


def _large(folder: Path) -> Iterator[Line]:
    files = _draw(folder, 130, 256)
    jpeg = _store(folder, files, "jpeg", 224)
    ways = {
        IMAGE_FOLDER: _image_folder(folder / "train", 224, 0.5),
        "JPEG": _feed(*jpeg, 0.5, 0),
        "raw": _feed(*_store(folder, files, "raw", 224), 0.5, 0),
        "cached JPEG": _feed(*jpeg, 0.5, CACHE_BYTES),
        "JPEG of 256 px": _feed(*_store(folder, files, "jpeg", 256), 0.5, 0),
        "decoding alone": _Decoding(*jpeg),
    }
    yield from _compared("128 images of 256 px → 224, cropped and mirrored", ways, {"JPEG": Goal(least=3)})


def _compared(case: str, ways: Mapping[str, "Way"], goals: Mapping[str, Goal]) -> Iterator[Line]:
    note(case)
    times = in_turn({name: partial(_walk, way) for name, way in ways.items()}, ROUNDS)
    for name in list(ways)[1:]:
        yield faster(8, f"{case}: {name}", IMAGE_FOLDER, times[name], times[IMAGE_FOLDER], goal=goals.get(name))


def _agree(folder: Path, manifest: DatasetManifest, prepared: Path) -> None:
    """Both sides give the same pictures, uncut and unmirrored, up to what storing them once more as JPEG changes."""
    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    there = ImageFolder(str(folder), plain)
    theirs = {Path(path).name: there[number][0] for number, (path, _) in enumerate(there.samples)}
    split = replace(_feed(manifest, prepared, 1.0, 0).splits[0], cache_bytes=0)
    ours = torch.cat([_normalised(batch.images) for batch in in_order(split, BATCH)])
    off = [(image - theirs[f"{int(name) - 1}.jpg"]).abs().mean() for name, image in zip(split.ids, ours, strict=True)]
    assert max(off) < LEVELS / 255 / min(STD)


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


class _Decoding:
    """The files of a split, as torchvision decodes them, one after the other."""

    def __init__(self, manifest: DatasetManifest, folder: Path) -> None:
        split = _feed(manifest, folder, 1.0, 0).splits[0]
        self.files = [torch.frombuffer(bytearray(item), dtype=torch.uint8) for item in split.table["image"].to_pylist()]

    def walk(self) -> None:
        for file in self.files[: len(self.files) // BATCH * BATCH]:
            decode_jpeg(file)


Way = ImageFolderLoader | Feed | _Decoding


def _walk(way: Way) -> None:
    """One epoch: ImageFolder's transforms normalise, our batches are normalised as a network does it."""
    if isinstance(way, _Decoding):
        way.walk()
    elif isinstance(way, DataLoader):
        for _batch in way:
            pass
    else:
        for batch in way.loader(0, way.steps_per_epoch, workers=0, pin=False):
            _normalised(batch.images)


def _normalised(images: Tensor) -> Tensor:
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return images.float().sub_(mean).div_(std)


if __name__ == "__main__":
    show(lines())
