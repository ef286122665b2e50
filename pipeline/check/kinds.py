"""Columns and task kinds -> which kind can learn from which column, and the lines of params.yaml that say so."""

import json
import re
from collections.abc import Iterator, Mapping

from models.spec import Column, TaskSpec
from models.tasks import TASKS
from pipeline.artifacts import DatasetManifest
from pipeline.config import Config
from pipeline.jobs import task_specs
from pipeline.preflight import check_study

PLAIN = re.compile(r"(?!(true|false|null|yes|no|on|off)$)[A-Za-z_][\w-]*", re.IGNORECASE)  # a key without quotes


def fitting_kinds(name: str, column: Column) -> list[str]:
    """Map a column to the kinds that take it, as they say themselves; one that its name speaks of stands first."""
    asked = {kind: TaskSpec(name=name, kind=kind, dataset="", column_name=name, column=column) for kind in TASKS}
    kinds = [kind for kind, spec in asked.items() if not _refusal(spec)]
    return sorted(kinds, key=lambda kind: kind.rstrip("s") not in name.lower())


def study_stops(config: Config, declared: Mapping[str, DatasetManifest]) -> list[str]:
    """Map settings and columns to what of the study can't be trained: its tasks, or else what is built of them.

    Of data sets that could not be listed nothing is said, and then nothing is built.
    """
    known = {name: task for name, task in config.tasks.items() if task.dataset in declared}
    try:
        specs = task_specs(config.model_copy(update={"tasks": known}), declared)
        wrong = [
            f"{refusal}; {' or '.join(fitting_kinds(spec.column_name, spec.column)) or 'no kind'} would fit"
            for spec in specs
            if (refusal := _refusal(spec))
        ]
        if not wrong and len(declared) == len(config.datasets):
            check_study(config, declared, weights=False)
    except ValueError as error:
        return str(error).splitlines()
    return wrong


def unused_columns(config: Config, declared: Mapping[str, DatasetManifest]) -> Iterator[str]:
    """Columns that no task learns from -> tasks that could, as lines of params.yaml."""
    taken = set(config.tasks)
    for dataset, manifest in declared.items():
        used = {task.column or name for name, task in config.tasks.items() if task.dataset == dataset}
        for name, column in manifest.columns.items():
            kinds = fitting_kinds(name, column) if name not in used else []
            if not kinds:
                continue
            task = name if name not in taken else f"{dataset}_{name}"
            taken.add(task)
            settings = f"kind: {kinds[0]}, dataset: {_key(dataset)}" + (
                f", column: {_key(name)}" if task != name else ""
            )
            yield f"  {_key(task)}: {{{settings}}}" + (f"  # or {', '.join(kinds[1:])}" if kinds[1:] else "")


def _refusal(spec: TaskSpec) -> str:
    """Why a kind doesn't take a task's column, head or options; empty where it does."""
    try:
        TASKS[spec.kind](spec)
    except ValueError as error:
        return str(error)
    return ""


def _key(name: str) -> str:
    return name if PLAIN.fullmatch(name) else json.dumps(name)
