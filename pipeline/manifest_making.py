"""A data set in any layout that has a reader -> a manifest (`pipeline/datasets/manifest.py`) with all its labels.

A file is used where it stands if it holds just what the reader gives. What the reader makes itself (a crop, ids that it
renumbers, a map at another size) is written as PNG into a folder beside the manifest.
"""

import csv
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.spec import Column
from pipeline.datasets import SPLITS, BadExample, Row, Source
from pipeline.datasets._manifest_headers import parse_labels
from pipeline.datasets.files import content_group, noting_reads
from pipeline.encoding import encode
from pipeline.processes import in_processes

ROWS_AT_ONCE = 64
RETRIES = 2  # for processes that the system kills
SHOWN = 5  # bad rows named in a message

Reads = Sequence[tuple[Path, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What all rows have in common. Files that must be written go to `draft`, which is named `files` when whole."""

    source: Source
    columns: Mapping[str, Column]
    base: Path  # the manifest's folder
    draft: Path
    files: str


@dataclass(frozen=True, kw_only=True)
class _Written:
    image: str
    group: str  # empty where the image's content is the group
    labels: Sequence[str]


def make_manifest(
    source: Source, out: Path, *, workers: int, say: Callable[[str], None], on_bad: str = "fail"
) -> tuple[int, int]:
    """Write a source's manifest to `out`, and beside it `<stem>_files` where needed; give the rows and files written.

    ValueError where something stands there already, lists bad rows unless `on_bad` is "skip".
    """
    base, files = Path(os.path.abspath(out)).parent, f"{out.stem}_files"
    _check_place(source, out, base, files)
    columns, rows = source.columns(), source.rows()
    headers = {name: _headers(name, column) for name, column in columns.items()}
    _check_headers(columns, headers)
    plan = _Plan(source=source, columns=columns, base=base, draft=base / f".{files}", files=files)
    shutil.rmtree(plan.draft, ignore_errors=True)
    plan.draft.mkdir()
    try:
        written, bad = _all_rows(plan, rows, workers, say)
        if bad and (on_bad == "fail" or len(bad) == len(rows)):
            listed = "\n  ".join(bad[:SHOWN])
            raise ValueError(f"{len(bad)} of {len(rows)} rows are bad; first {min(SHOWN, len(bad))}:\n  {listed}")
        if bad:
            say(f"{len(bad)} of {len(rows)} rows are bad and left out; the first: {bad[0]}")
        count = len(list(plan.draft.iterdir()))
        if count:
            plan.draft.rename(base / files)
        _write(out, [header for each in headers.values() for header in each], rows, written)
    finally:
        shutil.rmtree(plan.draft, ignore_errors=True)
    return len(written), count


def _check_place(source: Source, out: Path, base: Path, files: str) -> None:
    if out.suffix != ".csv":
        raise ValueError(f"{out}: a manifest is written as csv; name a file that ends in .csv")
    if not base.is_dir():
        raise ValueError(f"{out}: there is no folder {base}")
    if there := [path for path in (out, base / files) if path.exists()]:
        raise ValueError(f"{there[0]} stands there already; remove it or write to another name")
    root = source.settings.root
    if root is not None and not _below(base, root):
        raise ValueError(
            f"{out}: a manifest names files below its own folder, and {root} is not; write it to {root}.csv, or link"
            f" the folder there (ln -s {root} {base / root.name}) and read {base / root.name}"
        )


def _below(base: Path, path: Path) -> bool:
    return base in Path(os.path.abspath(path)).parents


def _headers(name: str, column: Column) -> list[str]:
    if column.layout == "flags":
        return [f"{name}.{flag}:flags" for flag in column.classes]
    option = "|".join(column.classes)
    if column.layout == "field":
        option = f"{column.scale!r}|{column.unit}"
    return [f"{name}:{column.layout}:{option}".rstrip(":")]


def _check_headers(columns: Mapping[str, Column], headers: Mapping[str, Sequence[str]]) -> None:
    """A manifest's header is text; a name with a sign that means something there would be read as something else."""
    for name, column in columns.items():
        try:
            table = {header.strip(): () for header in headers[name]}
            read = [(label.name, label.column) for label in parse_labels(table, Path())]
        except ValueError:
            read = []
        if read != [(name, replace(column, shares=()))]:
            raise ValueError(
                f"column {name!r}: its name or one of its {len(column.classes)} classes can't stand in a header"
                " (id, image and '' are taken; | divides classes, : ends a name, and so does . that of flags)"
            )


def _all_rows(
    plan: _Plan, rows: Sequence[Row], workers: int, say: Callable[[str], None]
) -> tuple[dict[int, _Written], list[str]]:
    starts = range(0, len(rows), ROWS_AT_ONCE)
    chunks = [(start, rows[start : start + ROWS_AT_ONCE]) for start in starts]
    done: dict[int, _Written | str] = {}
    for _, found in in_processes(_some_rows, plan, chunks, workers, RETRIES):
        said = len(done) * 10 // len(rows)
        done |= found
        if len(done) * 10 // len(rows) > said:
            say(f"{len(done)} of {len(rows)} rows read")
    ordered = [(number, done[number]) for number in range(len(rows))]
    written = {number: row for number, row in ordered if isinstance(row, _Written)}
    return written, [row for _, row in ordered if isinstance(row, str)]


def _some_rows(plan: _Plan, chunk: tuple[int, Sequence[Row]]) -> dict[int, _Written | str]:
    """Some rows, the first's number before them -> each row's cells by its number, or what is wrong with it."""
    start, rows = chunk
    found: dict[int, _Written | str] = {}
    for number, row in enumerate(rows, start=start):
        try:
            found[number] = _row(plan, number, row)
        except BadExample as error:
            found[number] = f"{row.origin}: {error}"
    return found


def _row(plan: _Plan, number: int, row: Row) -> _Written:
    with noting_reads() as reads:
        example = plan.source.load(row)
    whole = [path for path, values in reads if np.array_equal(values, example.image)]
    if whole:
        image = _relative(plan, whole[0])
    else:
        image = _file(plan, number, "image")
        Image.fromarray(example.image).save(plan.draft / Path(image).name)
    group = "" if whole and content_group(whole[0]) == row.group else row.group
    labels: list[str] = []
    for name, column in plan.columns.items():
        labels += _cells(plan, number, name, example.labels.get(name), column, reads)
    return _Written(image=image, group=group, labels=labels)


def _cells(plan: _Plan, number: int, name: str, label: Any, column: Column, reads: Reads) -> list[str]:
    """A label -> the cells of its headers."""
    stored = encode(name, column, label)
    if column.layout == "flags":
        return [{0: "0", 1: "1"}.get(flag, "") for flag in stored or [-1] * len(column.classes)]
    if stored is None:
        return [""]
    if column.layout == "class":
        return [column.classes[stored]]
    if column.layout in ("points", "boxes"):
        width = 3 if column.layout == "points" else 5
        numbers = [str(np.float32(value)).removesuffix(".0") for value in stored]
        places = [f"[{', '.join(numbers[start : start + width])}]" for start in range(0, len(numbers), width)]
        return [f"[{', '.join(places)}]"]
    held = np.round(np.asarray(label) / column.scale) if column.layout == "field" else np.asarray(label)
    for path, values in reads:
        if column.layout != "normals" and values.ndim == 2 and np.array_equal(values, held):
            return [_relative(plan, path)]
    file = _file(plan, number, name)
    (plan.draft / Path(file).name).write_bytes(stored)
    return [file]


def _relative(plan: _Plan, path: Path) -> str:
    if not _below(plan.base, path):
        raise BadExample(f"{path} is not below {plan.base}, the manifest's folder")
    return Path(os.path.abspath(path)).relative_to(plan.base).as_posix()


def _file(plan: _Plan, number: int, name: str) -> str:
    """Where a row's file goes, as the manifest names it."""
    return f"{plan.files}/{number + 1:07d}_{''.join(sign if sign.isalnum() else '_' for sign in name)}.png"


def _write(out: Path, labels: Sequence[str], rows: Sequence[Row], written: Mapping[int, _Written]) -> None:
    """The csv: `split` where any row has one, `group` where it decides a split that prepare draws."""
    splits = {rows[number].split for number in written}
    split = splits != {None}
    group = not splits >= set(SPLITS) and any(row.group for row in written.values())
    draft = out.with_name(f".{out.name}")
    with draft.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", *["split"] * split, *["group"] * group, *labels])
        for number, row in written.items():
            table.writerow([row.image, *[rows[number].split or ""] * split, *[row.group] * group, *row.labels])
    draft.replace(out)
