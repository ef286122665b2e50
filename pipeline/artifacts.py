"""Every path and every schema of what a stage hands on; nothing heavy is imported before it is needed.

A stage's folder is one DVC out. It is written under a temporary name and renamed when whole, so that a killed stage
leaves nothing that could be taken for a result.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from models.spec import Column
from pipeline.config import ROOT

ARTIFACTS = ROOT / "artifacts"


def _schema(**kinds: pa.DataType) -> pa.Schema:
    return pa.schema(list(kinds.items()))


_TEXT, _REAL, _WHOLE, _SMALL = pa.string(), pa.float64(), pa.int64(), pa.int32()
AFFINITY = _schema(
    location=_SMALL, task_a=_TEXT, task_b=_TEXT, value=_REAL, ci_low=_REAL, ci_high=_REAL, null_high=_REAL
)
RDMS = _schema(task=_TEXT, location=_SMALL, triangle=pa.list_(pa.float32()))
TREES = _schema(
    groups=_TEXT,
    cost=_REAL,
    lower_bound=_REAL,
    budget=_WHOLE,
    params=_WHOLE,
    flops=_WHOLE,
    method=_TEXT,
    optimal=pa.bool_(),
)
TRIALS = _schema(
    job=_TEXT, name=_TEXT, key=_TEXT, seed=_SMALL, split=_TEXT, task=_TEXT, epoch=_SMALL, metric=_TEXT, value=_REAL
)


@dataclass(frozen=True, kw_only=True)
class DatasetManifest:
    """What `prepare` knows of one data set: enough to build heads and to name what a network was trained on."""

    name: str
    counts: Mapping[str, int]
    size: tuple[int, int]
    columns: Mapping[str, Column]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str
    licence: str
    skipped: tuple[str, ...] = ()


_MANIFESTS = TypeAdapter(dict[str, DatasetManifest], config={"extra": "forbid", "allow_inf_nan": False})
SHOWN = 200  # letters of a place in a message


@contextmanager
def writing(stage: str, base: Path | None = None) -> Iterator[Path]:
    """Give a temporary folder for a stage's results; rename it to `artifacts/<stage>` when the block ends well."""
    base = base or ARTIFACTS
    base.mkdir(parents=True, exist_ok=True)
    for stale in base.glob(f".{stage}.*"):
        shutil.rmtree(stale)
    draft = base / f".{stage}.{os.getpid()}"
    draft.mkdir()
    yield draft
    target = base / stage
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)


@contextmanager
def keeping(stage: str, base: Path | None = None) -> Iterator[Path]:
    """Give a folder that outlives a stopped stage, for its next start to use; it goes when the block ends well."""
    folder = (base or ARTIFACTS) / f".{stage}-kept"  # DVC deletes artifacts/<stage> when a stage starts
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)


def write_json(path: Path, value: Any) -> None:
    """Write JSON under a temporary name, then rename."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")
    draft.replace(path)


def read_json(path: Path) -> Any:
    if not path.exists():
        raise ValueError(f"{path}: missing; run `dvc repro`, which makes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: not JSON, or cut off; remove it and run `dvc repro`: {error}") from error


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)


def read_table(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise ValueError(f"{path}: missing; run `dvc repro`, which makes it")
    try:
        return pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path}: damaged; remove it and run `dvc repro`, which makes it: {error}") from error


def write_manifests(folder: Path, manifests: Iterable[DatasetManifest]) -> None:
    write_json(folder / "manifest.json", {manifest.name: asdict(manifest) for manifest in manifests})


def read_manifests(folder: Path | None = None) -> dict[str, DatasetManifest]:
    path = (folder or ARTIFACTS / "prepare") / "manifest.json"
    raw = read_json(path)
    try:
        return _MANIFESTS.validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:SHOWN]
        raise ValueError(f"{path}: {where}: {first['msg']}; remove it and run `dvc repro`, which makes it") from None


def shards(dataset: str, split: str, folder: Path | None = None) -> list[Path]:
    """The Arrow files of one split, in order."""
    return sorted(((folder or ARTIFACTS / "prepare") / dataset / split).glob("*.arrow"))


def digest(value: Any) -> str:
    """Map a JSON-able value to a short stable name (sha256, 16 hexadecimal digits)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def digest_file(path: Path) -> str:
    """Map a file's contents to their sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """Map the contents of files, in the given order, to a sha256."""
    return digest_digests(map(digest_file, paths))


def digest_digests(digests: Iterable[str]) -> str:
    """Map the digests of files, in the given order, to that of `digest_files`."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def meaning(columns: Mapping[str, Column]) -> dict[str, Any]:
    """What the cells of a data set's columns mean, as a JSON-able value."""
    return {name: [c.layout, list(c.classes), c.scale, c.unit] for name, c in columns.items()}


def fingerprint_of(digests: Iterable[str], meaning: Mapping[str, Any]) -> str:
    """What names a data set in the keys of jobs: its shards, by their digests in order, and what their cells mean."""
    return digest([digest_digests(digests), meaning])
