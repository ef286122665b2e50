"""A bundle -> its model card: Markdown, with the YAML head that the Hugging Face Hub reads."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from models.accounting import count_flops, delta_mtl
from models.bundle import load
from models.bundle_files import open_spec
from models.sharing import SharedModel
from pipeline.about import About, TaskAbout, read_about
from pipeline.report.number_texts import percent_text, value_text
from pipeline.shared_text import shared_text

HUB_TASKS = {
    "classification": "image-classification",
    "attributes": "image-classification",
    "segmentation": "image-segmentation",
    "depth": "depth-estimation",
    "keypoints": "keypoint-detection",
    "detection": "object-detection",
}  # as the Hub calls them; other kinds are "image-to-image"
UNMEASURED = "No `about.json` stands beside this bundle, so what it was measured at and learned from is not known here."


def card(bundle: Path, *, head: bool) -> str:
    """Map a bundle's folder to what is known of it, as Markdown that reads well as text; with or without the head."""
    network, about = load(bundle).network, read_about(bundle)
    name = "/".join(bundle.resolve().parts[-2:])
    start = f"---\n{_head(network, about, name)}---\n\n" if head else ""
    parts = [f"# {name}", _summary(network, bundle), "## What the tasks share", f"```\n{shared_text(network)}\n```"]
    parts += ["## Tasks", _tasks(network, about)]
    parts += [*_data(about), *_provenance(about)] if about else [UNMEASURED]
    return start + "\n\n".join([*parts, *_use(network, bundle)]) + "\n"


def _head(network: SharedModel, about: About | None, name: str) -> str:
    """The lines of YAML that the Hub reads; the owner has to choose the licence."""
    kinds = dict.fromkeys(HUB_TASKS.get(task.kind, "image-to-image") for task in network.spec.tasks)
    tags = ["multi-task-learning", "coppice", network.spec.strategy, *kinds]
    lines = ["license: unknown", "library_name: coppice", "tags:", *(f"- {tag}" for tag in tags)]
    if about:
        lines += ["model-index:", f"- name: {_quoted(name)}", "  results:"]
        kind_of = {task.name: task.kind for task in network.spec.tasks}
        for task, row in _defined(about).items():
            kind = HUB_TASKS.get(kind_of.get(task, ""), "image-to-image")
            lines += [
                f"  - task: {{type: {kind}, name: {_quoted(task)}}}",
                f"    dataset: {{type: {_quoted(row.dataset)}, name: {_quoted(row.dataset)}, split: test}}",
                f"    metrics: [{{type: {_quoted(row.metric)}, value: {json.dumps(row.test)}}}]",
            ]
    return "\n".join(lines) + "\n"


def _summary(network: SharedModel, bundle: Path) -> str:
    spec = network.spec
    height, width = spec.backbone.size
    sizes = {task.size or spec.backbone.size for task in spec.tasks}
    images = f"{height} x {width} pixels" if len(sizes) == 1 else f"up to {height} x {width} pixels"
    names = f"{len(spec.tasks)} tasks" if len(spec.tasks) > 1 else "one task"
    # A network that was loaded needs no first weights; the file knows whether it had some.
    start = ", begun from timm's pre-trained weights" if open_spec(bundle)["backbone"]["pretrained"] else ""
    costs = f"{network.num_params():,} parameters"
    if len(sizes) == 1:
        costs += f", {_gmacs(network, spec.task_names):.3g} billion multiply-adds an image"
    return (
        f"A network for {names} on images of {images}, strategy `{spec.strategy}`, backbone `{spec.backbone.name}`"
        f"{start}: {costs}."
    )


def _gmacs(network: SharedModel, names: Sequence[str]) -> float:
    spec = network.spec
    size = next(task.size or spec.backbone.size for task in spec.tasks if task.name in names)
    return count_flops(network, torch.zeros(1, 3, *size), tuple(names)) / 2e9


def _tasks(network: SharedModel, about: About | None) -> str:
    """One line a task: what it is, what it costs alone, and, where that is known, how good it is."""
    header = ["task", "kind", "data set", "classes", "GMACs alone"]
    measured = about.tasks if about else {}
    rows = []
    for task in network.spec.tasks:
        cells = [task.name, task.kind, task.dataset, str(len(task.column.classes) or "–")]
        cells.append(f"{_gmacs(network, (task.name,)):.3g}")
        rows.append([*cells, *_measured(measured[task.name], about)] if about and task.name in measured else cells)
    if about:
        header += ["metric", "test", "test images", "single-task network", "change"]
    table = _table(header, rows)
    changes = [change for row in measured.values() if (change := _change(row)) is not None]
    if len(changes) > 1:
        mean = percent_text(sum(changes) / len(changes))
        table += f"\n\nΔ_MTL, the mean change against the single-task networks of the same study: {mean} %."
    return table


def _measured(row: TaskAbout, about: About) -> list[str]:
    change, images = _change(row), about.datasets[row.dataset].counts.get("test", 0)
    name = f"{row.metric}{f' ({row.unit})' if row.unit else ''}{' ↑' if row.higher_is_better else ' ↓'}"
    values = ["–" if value is None else value_text(value) for value in (row.test, row.single_task)]
    return [name, values[0], f"{images:,}", values[1], "–" if change is None else f"{percent_text(change)} %"]


def _change(row: TaskAbout) -> float | None:
    """A task's part of Δ_MTL, where it has a network of its own to be compared with."""
    if row.test is None or not row.single_task:
        return None
    return delta_mtl({"": row.test}, {"": row.single_task}, {"": row.higher_is_better})


def _defined(about: About) -> dict[str, TaskAbout]:
    return {task: row for task, row in about.tasks.items() if row.test is not None}


def _data(about: About) -> Iterator[str]:
    yield "## Data"
    header = ["data set", "train", "val", "test", "fingerprint", "licence"]
    yield _table(
        header,
        [
            [
                name,
                *(f"{data.counts.get(split, 0):,}" for split in ("train", "val", "test")),
                data.fingerprint,
                data.licence,
            ]
            for name, data in about.datasets.items()
        ],
    )


def _provenance(about: About) -> Iterator[str]:
    yield "## Provenance"
    jobs = {
        row.job: [name for name, other in about.tasks.items() if other.job == row.job] for row in about.tasks.values()
    }
    epochs = {row.job: row.epoch for row in about.tasks.values()}
    lines = [f"- job `{job}` (epoch {epochs[job]}): {', '.join(names)}" for job, names in jobs.items()]
    versions = ", ".join(f"{name} {number}" for name, number in about.versions.items())
    yield "\n".join([*lines, f"- {versions}"])
    yield (
        "A job's key is a digest of its settings, its data's fingerprints and the program's text. Epochs were picked on"
        " validation, and test was read once."
    )


def _use(network: SharedModel, bundle: Path) -> Iterator[str]:
    yield "## Use"
    first = network.spec.task_names[0]
    yield (
        f"```\npython -m stages.predict {bundle} photo.jpg\n```\n\n```python\nfrom models.bundle import load\n\n"
        f'model = load("{bundle}")\npredictions = model(images)  # uint8 [B, 3, H, W] -> {{task: prediction}}\n'
        f"alone = model.only({json.dumps(first, ensure_ascii=False)})\n```"
    )
    yield "## Intended use and limits"
    yield "To be written by the owner: what it is for, what it is not for, whom its errors concern."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; short rows are filled."""
    filled = [[*row, *["–"] * (len(header) - len(row))] for row in rows]
    plain = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in filled]
    widths = [max(map(len, column)) for column in zip(header, *plain, strict=True)]
    lines = [header, ["-" * width for width in widths], *plain]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _quoted(text: Any) -> str:
    """A scalar of YAML, which takes JSON's."""
    return json.dumps(text, ensure_ascii=False)
