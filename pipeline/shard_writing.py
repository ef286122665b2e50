"""Some rows of a data set -> one Arrow file and a record of it; it runs in the processes that `prepare` starts.

A file is a sequence of record batches of one number of rows: no process holds more encoded rows than one batch has, and
a reader finds any row by its number. How many rows go where depends on their number, the image size and the way images
are stored alone. A file that has its record is whole.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from PIL import Image

from models.spec import Column
from pipeline.artifacts import digest_file, write_json
from pipeline.datasets import BadExample, Row, Source
from pipeline.encoding import LAYOUTS, encode, encode_image, image_type, resize
from pipeline.label_counts import count, no_counts

ROWS = 256  # of a batch, and the least of a shard
PARTS = 128  # into which a split is cut, before its shards grow beyond ROWS
SHARD_BYTES, BATCH_BYTES = 256 << 20, 128 << 20
PIXEL_BYTES = {"raw": 3.0, "jpeg": 0.625}  # JPEG: photographs at 224 px and quality 95
LEVELS = np.arange(256)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What all shards of a data set have in common: where rows come from, how they are stored, where files are left."""

    source: Source
    columns: Mapping[str, Column]
    size: tuple[int, int]
    store: str
    quality: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Part:
    """One shard's work. `key` names all that decides its bytes."""

    key: str
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a shard: sums over its images' pixels, counts of its labels, rows that could not be read."""

    sha256: str
    bytes: int
    count: int
    levels: Sequence[Sequence[int]]  # [2, 3]: sum and sum of squares of the images' channels in 0..255
    labels: Mapping[str, Sequence[Sequence[int]]]  # by column, see `label_counts`
    bad: Sequence[str]


def rows_of_shard(count: int, size: tuple[int, int], store: str) -> int:
    """How many of a split's `count` rows a shard holds: about SHARD_BYTES of images where the split is large."""
    return max(1, min(max(ROWS, ceil(count / PARTS)), int(SHARD_BYTES / _cell_bytes(size, store))))


def rows_of_batch(size: tuple[int, int], store: str) -> int:
    return max(1, min(ROWS, int(BATCH_BYTES / _cell_bytes(size, store))))


def _cell_bytes(size: tuple[int, int], store: str) -> float:
    return size[0] * size[1] * PIXEL_BYTES[store]


def shard_of(recipe: Recipe, part: Part) -> Path:
    return recipe.folder / f"{part.key}.arrow"


def record_of(recipe: Recipe, part: Part) -> Path:
    return recipe.folder / f"{part.key}.json"


def read_record(recipe: Recipe, part: Part) -> Record | None:
    """A part -> its record, None where it is not done or its file is not the one that was recorded."""
    shard, record = shard_of(recipe, part), record_of(recipe, part)
    if not (shard.is_file() and record.is_file()):
        return None
    found = Record(**json.loads(record.read_text()))
    return found if shard.stat().st_size == found.bytes else None


def write_part(recipe: Recipe, part: Part) -> Record:
    """Load, resize and encode a part's rows; leave its shard and then its record, each renamed when whole."""
    totals, levels, bad = no_counts(recipe.columns), np.zeros((2, 3), dtype=np.int64), list[str]()
    draft, schema, written = recipe.folder / f".{part.key}.{uuid4().hex}", _schema(recipe), 0
    with pa.ipc.new_file(str(draft), schema) as writer:
        rows = _encoded(recipe, part, totals, levels, bad)
        while cells := list(islice(rows, rows_of_batch(recipe.size, recipe.store))):
            writer.write_batch(pa.RecordBatch.from_pylist(cells, schema=schema))
            written += len(cells)
    record = Record(
        sha256=digest_file(draft),
        bytes=draft.stat().st_size,
        count=written,
        levels=levels.tolist(),
        labels={name: total.tolist() for name, total in totals.items()},
        bad=bad,
    )
    draft.replace(shard_of(recipe, part))
    write_json(record_of(recipe, part), vars(record))
    return record


def _encoded(
    recipe: Recipe, part: Part, totals: Mapping[str, np.ndarray], levels: np.ndarray, bad: list[str]
) -> Iterator[dict[str, Any]]:
    """The cells of a part's good rows, one row after another; adds to the totals, the levels and the bad rows."""
    columns = recipe.columns
    for row in part.rows:
        try:
            example = resize(recipe.source.load(row), columns, recipe.size)
            labels = {name: encode(name, column, example.labels.get(name)) for name, column in columns.items()}
        except BadExample as error:
            bad.append(f"{row.origin}: {error}")
            continue
        # Masks are counted as they came, not as PNG; a class may have come as a name.
        count(totals, columns, {n: example.labels.get(n) if columns[n].layout == "mask" else labels[n] for n in totals})
        seen = np.reshape(Image.fromarray(example.image).histogram(), (3, 256))
        levels += [seen @ LEVELS, seen @ LEVELS**2]
        yield {"id": row.id, "image": encode_image(example.image, recipe.store, recipe.quality), **labels}


def _schema(recipe: Recipe) -> pa.Schema:
    labels = [(name, LAYOUTS[column.layout].arrow) for name, column in recipe.columns.items()]
    return pa.schema([("id", pa.string()), ("image", image_type(recipe.store, recipe.size)), *labels])
