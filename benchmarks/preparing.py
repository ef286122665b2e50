"""Preparing against a loop over Pillow.    python -m benchmarks.preparing    (three minutes)

Both sides read the same files, bring them to one size and write JPEGs of one quality, the same to a grey level or two:
the loop one file an image, as written by hand; `prepare` shards, with splits, checks, statistics and digests. Pictures
are made up, with as many bytes a pixel as photographs. The last lines are for the design size, 1.3 million images: the
memory that a process takes for one of its shards is measured, the times are extrapolated.
"""

import resource
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from itertools import count, cycle, islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.lines import Line, faster, figure, note, show
from benchmarks.timing import in_turn
from pipeline.artifacts import shards
from pipeline.config import Config, load
from pipeline.datasets import Source
from pipeline.machine import Machine
from pipeline.preparing import declare, open_source, prepare_dataset
from pipeline.processes import in_processes
from pipeline.shard_writing import Part, Recipe, Record, rows_of_shard, write_part

DESIGN = 1_300_000
PROCESSES = 16  # of a machine for which times are extrapolated
QUALITY = 95
ROUNDS = 3
GRAIN = 10  # of noise, in grey levels


def lines() -> Iterator[Line]:
    with TemporaryDirectory() as folder:
        seconds = yield from _compared(
            "1,000 JPEG files of 256 px → 224", Path(folder) / "large", 1000, 256, 224, "jpg"
        )
        yield from _compared("4,000 PNG files of 64 px", Path(folder) / "small", 4000, 64, 64, "png")
        yield from _design_size(Path(folder) / "large", 224, seconds)


def _compared(case: str, folder: Path, images: int, drawn: int, size: int, suffix: str) -> Generator[Line, None, float]:
    """Both sides' lines; what returns is the CPU seconds that one of our processes takes for an image."""
    note(case)
    files = _draw(folder, images, drawn, suffix)
    config = _config(folder, size)
    source = open_source("made", config, Machine())
    turn = count()
    ways = {
        "loop": partial(_loop, files, folder / "loop", size),
        "prepare": lambda: _prepare(source, config, folder / f"one-{next(turn)}", 1),
        "2 processes": lambda: _prepare(source, config, folder / f"two-{next(turn)}", 2),
        "their start": lambda: list(in_processes(_begin, None, range(2), 2, 0)),
    }
    times = in_turn(ways, ROUNDS)
    _agree(folder / "loop", next(folder.glob("one-*")), size)
    loop, start = times["loop"], min(times["their start"].wall)
    yield faster(8, f"prepare, {case}: one process", "a loop over Pillow", times["prepare"], loop)
    what = f"prepare, {case}: two processes, {start:.1f} s of it to start them"
    yield faster(8, what, "a loop over Pillow", times["2 processes"], loop, clock="wall")
    return min(times["prepare"].cpu) / images


def _agree(loop: Path, prepared: Path, size: int) -> None:
    """Both sides store the same pictures, up to how they shrink them."""
    cells = {}
    for split in ("train", "val", "test"):
        table = pa.concat_tables(pa.ipc.open_file(str(path)).read_all() for path in shards("made", split, prepared))
        cells |= dict(zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True))
    for name, cell in sorted(cells.items())[:20]:
        ours = np.asarray(Image.open(BytesIO(cell)), dtype=int)
        theirs = np.asarray(Image.open(loop / f"{Path(name).stem}.jpg"), dtype=int)
        assert ours.shape == (size, size, 3)
        assert np.abs(ours - theirs).mean() < 2, name


def _begin(_shared: None, item: int) -> int:
    """What a process does once: it imports its code, and pyarrow imports pandas at the first array."""
    return len(pa.array([item]))


def _draw(folder: Path, images: int, side: int, suffix: str) -> list[Path]:
    """Make files in ten class folders: coarse patches with fine grain, 0.6 bytes a pixel where they are stored."""
    draw, files = np.random.default_rng(0), []
    for number in range(images):
        path = folder / "set" / f"class-{number % 10}" / f"{number:05d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
        grain = draw.normal(0, GRAIN, (side, side, 1))
        picture = Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))
        picture.save(path, quality=QUALITY)
        files.append(path)
    return files


def _loop(files: Sequence[Path], folder: Path, side: int) -> None:
    folder.mkdir(exist_ok=True)
    for path in files:
        picture = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        picture.save(folder / f"{path.stem}.jpg", quality=QUALITY, subsampling=0)


def _config(folder: Path, side: int) -> Config:
    config = load()
    made = config.datasets["scenes"].model_copy(
        update={"reader": "folders", "root": str(folder / "set"), "images": None, "size": (side, side)}
    )
    prepare = config.prepare.model_copy(update={"store": "jpeg", "quality": QUALITY})
    return config.model_copy(update={"datasets": {"made": made}, "prepare": prepare})


def _prepare(source: Source, config: Config, folder: Path, processes: int) -> None:
    machine = Machine(prepare_workers=processes)
    prepare_dataset(declare("made", config, source), source, config, machine, folder, lambda _: None)


def _design_size(folder: Path, side: int, seconds: float) -> Iterator[Line]:
    """Write one shard of the design size in a process of its own, from the same files over and over."""
    config = _config(folder, side)
    source = open_source("made", config, Machine())
    facts = {"store": "jpeg", "quality": QUALITY, "size": (side, side), "columns": dict(source.columns())}
    rows = rows_of_shard(DESIGN, (side, side), "jpeg")
    part = Part(key="one", rows=list(islice(cycle(source.rows()), rows)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        record, peak = pool.submit(_measured, Recipe(source=source, folder=folder, **facts), part).result()
    shards_there = -(-DESIGN // rows)
    case = f"prepare, {DESIGN:,} images of {side} px in {shards_there} shards"
    yield figure(
        8, f"{case}: memory of a process that writes one of {record.bytes / 2**20:.0f} MiB", "", [peak / 2**10], "MiB"
    )
    yield figure(8, f"{case}: stored, extrapolated from one shard", "", [shards_there * record.bytes / 1e9], "GB")
    what = f"{case}: time of {PROCESSES} processes that wait for no disk, extrapolated from one"
    yield figure(8, what, "", [DESIGN * seconds / 60 / PROCESSES], "min")


def _measured(recipe: Recipe, part: Part) -> tuple[Record, int]:
    return write_part(recipe, part), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    show(lines())
