"""A study's data sets on this machine's disk -> what stands there: columns, rows of each split, bytes an image.

Nothing is prepared. A set that is missing gets stand-ins for its columns, so that its study can be planned without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from models.spec import Column, TaskSpec
from models.tasks import TASKS
from models.tasks.base import NAMED_LAYOUTS
from pipeline.artifacts import DatasetManifest
from pipeline.config import Config
from pipeline.datasets import DATASETS, SPLITS, BadExample, Row, Source, detect
from pipeline.encoding import encode, encode_image, resize
from pipeline.machine import Machine, root_of
from pipeline.preparing import assign_splits, declare, open_source

SAMPLED = 12  # rows that are stored, to know the bytes of all
CLASSES = 100  # of a stand-in for a column whose classes are not known


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """One data set: `manifest.counts` are empty where it can't be trained on, and `problem` says why.

    `assumed` tells that the classes of its columns are stand-ins.
    """

    manifest: DatasetManifest
    reader: str
    root: str
    problem: str = ""
    assumed: bool = False
    row_bytes: float | None = None

    @property
    def images(self) -> int:
        return sum(self.manifest.counts.values())


def look(name: str, config: Config, machine: Machine) -> DataPlan:
    """Open a data set's reader, list its rows, and store a few of them in memory."""
    settings, root = config.datasets[name], root_of(name, config, machine)
    where = "" if root is None else str(root)
    try:
        source = open_source(name, config, machine)
        manifest, rows = declare(name, config, source), source.rows()
    except ValueError as error:
        others = [other for other in (detect(root) if root else ()) if other != settings.reader]
        hint = f"; it looks like the layout of {' or '.join(others)}: set reader" if others else ""
        problem = f"{error}{hint}"
        stand_in = _stand_in(name, config)
        return DataPlan(manifest=stand_in, reader=settings.reader, root=where, problem=problem, assumed=True)
    parts = assign_splits(rows, val=settings.val, test=settings.test, seed=config.seed)
    counts = {split: len(parts[split]) for split in SPLITS}
    row_bytes, bad = _row_bytes(rows, source, manifest, config)
    problem = _too_few(name, counts, settings.batch or config.train.batch)
    if bad and (row_bytes is None or config.prepare.on_bad == "fail"):
        problem = problem or f"{len(bad)} of {min(SAMPLED, len(rows))} rows looked at can't be read; first: {bad[0]}"
    return DataPlan(
        manifest=replace(manifest, counts={} if problem else counts),
        reader=settings.reader,
        root=where,
        problem=problem,
        row_bytes=row_bytes,
    )


def _too_few(name: str, counts: Mapping[str, int], batch: int) -> str:
    """What `prepare` or the loader would say of splits of these sizes; nothing where all is well."""
    if empty := [split for split in SPLITS if not counts[split]]:
        return f"no {' and no '.join(empty)} images; raise datasets.{name}.val / test or images"
    if counts["train"] < batch:
        return f"{counts['train']} training images are fewer than the batch of {batch}; lower datasets.{name}.batch"
    return ""


def _stand_in(name: str, config: Config) -> DatasetManifest:
    tasks = {key: task for key, task in config.tasks.items() if task.dataset == name}
    columns = {task.column or key: _column(task.kind) for key, task in tasks.items()}
    plain = (0.5, 0.5, 0.5)
    return DatasetManifest(
        name=name,
        counts={},
        size=config.datasets[name].size,
        columns=columns,
        mean=plain,
        std=plain,
        fingerprint="",
        licence=getattr(DATASETS.get(config.datasets[name].reader), "licence", ""),
    )


def _column(kind: str) -> Column:
    """A column that a kind could learn from: of many classes, of two where it takes no more, or of none."""
    layout = TASKS[kind].layout
    many, two = (
        Column(layout=layout, classes=tuple(str(index) for index in range(number)) if layout in NAMED_LAYOUTS else ())
        for number in (CLASSES, 2)
    )
    try:
        TASKS[kind](TaskSpec(name=kind, kind=kind, dataset="", column_name=kind, column=many))
    except ValueError:
        return two
    return many


def _row_bytes(
    rows: Sequence[Row], source: Source, manifest: DatasetManifest, config: Config
) -> tuple[float | None, list[str]]:
    """The mean bytes of an example's cells, over rows at even distances, and what is wrong with those that are bad.

    None where none of them can be read.
    """
    number = min(SAMPLED, len(rows))
    picked = [rows[place * len(rows) // number] for place in range(number)]
    sizes: list[int] = []
    bad: list[str] = []
    for row in picked:
        try:
            example = resize(source.load(row), manifest.columns, manifest.size)
            cells = [encode(name, column, example.labels.get(name)) for name, column in manifest.columns.items()]
        except BadExample as error:
            bad.append(f"{row.origin}: {error}")
            continue
        image = encode_image(example.image, config.prepare.store, config.prepare.quality)
        sizes.append(len(image) + sum(map(_cell_bytes, cells)))
    return (sum(sizes) / len(sizes) if sizes else None), bad


def _cell_bytes(cell: object) -> int:
    if isinstance(cell, bytes):
        return len(cell)
    return 4 * len(cell) if isinstance(cell, list) else 4


def manifests_of(data: Sequence[DataPlan]) -> Mapping[str, DatasetManifest]:
    return {item.manifest.name: item.manifest for item in data}
