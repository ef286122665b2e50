"""Rows of a data set -> finished parts, made by processes of this machine or of a cluster; what is done is not redone.

A part is known by a digest of all that decides its bytes: its rows, the data set's settings and columns, size and
encoding, what lies in the data folder (see `source_state`), the text of the readers and of the encoding, the libraries
that encode. So nothing stale is kept: after a file was mended, the set is stored anew.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import PIL
import pyarrow as pa

from pipeline.artifacts import digest, digest_files
from pipeline.config import ROOT, Config
from pipeline.datasets import Row, Source, code_of
from pipeline.machine import Machine, root_of
from pipeline.processes import in_processes
from pipeline.shard_writing import Part, Recipe, Record, read_record, record_of, rows_of_shard, shard_of, write_part
from pipeline.source_state import state_of

Say = Callable[[str], None]

# A data set's settings that decide where its rows go, how often they are drawn or what becomes of classes afterwards.
OUTSIDE = {"val", "test", "min_class_count", "weight", "batch"}
PROGRAM = ("models/spec.py", *(f"pipeline/{name}.py" for name in ("encoding", "label_counts", "shard_writing")))
SAY_SECONDS = 1.0


def settings_of(name: str, config: Config, machine: Machine) -> Any:
    """All of the settings that decide what a row's cells hold, as a JSON-able value."""
    settings, root = config.datasets[name].model_dump(mode="json", exclude=OUTSIDE), root_of(name, config, machine)
    return [settings, str(root), state_of(root), config.seed, config.prepare.model_dump(exclude={"on_bad"})]


def plan(recipe: Recipe, by_split: Mapping[str, Sequence[Row]], settings: Any, reader: str) -> dict[str, list[Part]]:
    """Cut each split's rows into parts, in order."""
    columns = {name: asdict(column) for name, column in recipe.columns.items()}
    common = digest([settings, columns, _program(recipe.source, reader), pa.__version__, PIL.__version__])
    parts: dict[str, list[Part]] = {}
    for split, rows in by_split.items():
        step = rows_of_shard(len(rows), recipe.size, recipe.store)
        chunks = [rows[start : start + step] for start in range(0, len(rows), step)]
        parts[split] = [Part(key=digest([common, *map(vars, chunk)]), rows=chunk) for chunk in chunks]
    return parts


def make(
    recipe: Recipe, parts: Sequence[Part], machine: Machine, name: str, on_bad: str, say: Say, progress: Say
) -> dict[str, Record]:
    """Finish all parts, telling `progress` how far it is; give their records by the parts' keys.

    Parts left by a stopped start count, but for those with bad rows where these are to be mended.
    """
    _clear(recipe, parts)
    found = {part.key: read_record(recipe, part) for part in parts}
    records = {key: it for key, it in found.items() if it is not None and not (it.bad and on_bad == "fail")}
    todo = [part for part in parts if part.key not in records]
    total = sum(len(part.rows) for part in parts)
    finished = before = total - sum(len(part.rows) for part in todo)
    if finished:
        say(f"{name}: {finished} of {total} images were stored before it stopped")
    started, said = time.monotonic(), -SAY_SECONDS
    for index, record in _spread(recipe, todo, machine):
        records[todo[index].key] = record
        finished += len(todo[index].rows)
        now = time.monotonic()
        if finished == total or now - said >= SAY_SECONDS:
            left = (now - started) * (total - finished) / (finished - before)
            progress(f"{name}: {finished} of {total} images, {_duration(left)} left")
            said = now
    return records


def _spread(recipe: Recipe, parts: Sequence[Part], machine: Machine) -> Iterator[tuple[int, Record]]:
    if machine.address:
        from pipeline.runner import spread  # brings torch, into this process alone

        return spread(write_part, recipe, parts, machine)
    workers = machine.prepare_workers or os.cpu_count() or 1
    return in_processes(write_part, recipe, parts, workers, machine.max_failures)


def _clear(recipe: Recipe, parts: Sequence[Part]) -> None:
    """Make the folder of finished parts; delete from it what this run has no use for."""
    wanted = {path for part in parts for path in (shard_of(recipe, part), record_of(recipe, part))}
    recipe.folder.mkdir(parents=True, exist_ok=True)
    for path in set(recipe.folder.iterdir()) - wanted:
        path.unlink()


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _program(source: Source, reader: str) -> str:
    text = {*(ROOT / "pipeline/datasets").glob("*.py"), *(ROOT / path for path in PROGRAM), *code_of(reader)}
    return digest_files(sorted(text | {source.code}))
