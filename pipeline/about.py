"""What a bundle's network was measured at and learned from: about.json, which a training stage leaves beside it.

Nothing that predicts needs it. It holds, for each task, the job that trained it, its metric on both splits and that of
the task's single-task network; each data set's fingerprint, licence and numbers of images; the libraries' versions.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from platform import python_version
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from models.spec import TaskSpec
from models.tasks import TASKS
from pipeline.artifacts import DatasetManifest, write_json
from pipeline.machine import Machine
from pipeline.storage import JobFolder

ABOUT = "about.json"
LIBRARIES = ("torch", "torchvision", "timm")


class _Known(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class TaskAbout(_Known):
    """One task as it was measured; `single_task` is what its single-task network has on test, `job` what trained it."""

    job: str
    epoch: int
    dataset: str
    metric: str
    unit: str
    higher_is_better: bool
    val: float | None
    test: float | None
    single_task: float | None = None


class DataAbout(_Known):
    """One data set that was learned from."""

    fingerprint: str
    licence: str
    counts: Mapping[str, int]


class About(_Known):
    """All of about.json."""

    tasks: Mapping[str, TaskAbout]
    datasets: Mapping[str, DataAbout]
    versions: Mapping[str, str]


def write_about(
    folder: Path,
    tasks: Sequence[TaskSpec],
    jobs: Mapping[str, str],
    machine: Machine,
    manifests: Mapping[str, DatasetManifest],
    single: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write about.json into a bundle's folder; `jobs` are the keys of the jobs that trained its tasks.

    `single` is what `pretrain` says of each task's network, or nothing where the bundle is one of those.
    """
    results = {key: JobFolder(machine.storage, key).read_result() for key in set(jobs.values())}
    rows = {}
    for spec in tasks:
        key, task = jobs[spec.name], TASKS[spec.kind](spec)
        result, alone = results[key], single.get(spec.name)
        assert result is not None, "a bundle is copied once its job is finished"
        rows[spec.name] = TaskAbout(
            job=key,
            epoch=result["epoch"],
            dataset=spec.dataset,
            metric=task.metric_name,
            unit=task.unit,
            higher_is_better=task.higher_is_better,
            val=_number(result["val"][spec.name]),
            test=_number(result["test"][spec.name]),
            single_task=_number(alone["test"]) if alone else None,
        )
    used = {spec.dataset: manifests[spec.dataset] for spec in tasks}
    about = About(
        tasks=rows,
        datasets={
            name: DataAbout(fingerprint=item.fingerprint, licence=item.licence, counts=item.counts)
            for name, item in used.items()
        },
        versions={"python": python_version(), **{name: version(name) for name in LIBRARIES}},
    )
    write_json(folder / ABOUT, about.model_dump())


def _number(value: float) -> float | None:
    """A metric, where it is defined."""
    return value if isfinite(value) else None


def read_about(folder: Path) -> About | None:
    """Read about.json in a bundle's folder; None where none stands there. ValueError where it is damaged."""
    file = folder / ABOUT
    if not file.is_file():
        return None
    try:
        return About.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"{file}: damaged, or of another version ({why}); remove it to go on without") from None


def keep_task(source: Path, task: str, target: Path) -> None:
    """Write of one bundle's about.json what concerns a task beside another bundle, where there is any."""
    about = read_about(source)
    if about is None or task not in about.tasks:
        return
    row = about.tasks[task]
    kept = about.model_copy(update={"tasks": {task: row}, "datasets": {row.dataset: about.datasets[row.dataset]}})
    (target / ABOUT).write_text(json.dumps(kept.model_dump(), indent=1, sort_keys=True) + "\n")
