"""What a stage left -> what its run shows: a description in Markdown, and files that MLflow shows where they lie."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from pipeline.affinity_svg import affinity_svg
from pipeline.artifacts import read_json, read_manifests, read_table
from pipeline.config import Config
from pipeline.machine import Machine
from pipeline.report.number_texts import count_text, number_text, percent_text, value_text
from pipeline.run_labels import study_data
from pipeline.tracked_run import Run

Row = Mapping[str, Any]


def describe_stage(run: Run, stage: str, config: Config, machine: Machine, base: Path) -> None:
    """Give a finished stage's run a description, the data that it read and what MLflow can show of its results.

    `base` is the folder of all artifacts.
    """
    manifests = read_manifests(base / "prepare")
    run.inputs(study_data(config, machine, manifests, list(manifests)))
    for file, text in stage_files(stage, base / stage).items():
        run.text(file, text)
    run.describe({"mlflow.note.content": NOTES[stage](base / stage)})


def stage_files(stage: str, folder: Path) -> dict[str, str]:
    """Map a finished stage's folder to texts that stand among its run's artifacts: affinities as a map and a table."""
    if stage != "affinity":
        return {}
    rows = read_table(folder / "affinity.parquet")
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return {"affinity.svg": affinity_svg(rows), "affinity.csv": text.getvalue()}


def _prepare(folder: Path) -> str:
    manifests = read_manifests(folder)
    return _table(
        ("data set", "train", "val", "test", "labels"),
        [
            (name, *(f"{one.counts.get(split, 0):,}" for split in ("train", "val", "test")), ", ".join(one.columns))
            for name, one in manifests.items()
        ],
    )


def _pretrain(folder: Path) -> str:
    rows = read_json(folder / "metrics.json")
    return _table(
        ("task", "metric", "validation", "test", "best constant on test"),
        [
            (task, row["metric"], *(value_text(row[key]) for key in ("val", "test", "trivial_test")))
            for task, row in rows.items()
        ],
    )


def _affinity(folder: Path) -> str:
    means = read_json(folder / "affinity.json")["mean"]
    return _table(("location", "mean affinity"), [(name[9:], number_text(value)) for name, value in means.items()])


def _trees(folder: Path) -> str:
    return f"```\n{(folder / 'trees.txt').read_text()}```"


def _branched(folder: Path) -> str:
    rows = read_json(folder / "metrics.json")
    return _networks({"label": name, **row} for name, row in rows.items())


def _taps(folder: Path) -> str:
    return _table(
        ("method", "parameters", "mean on test"),
        [
            (row["label"], f"{row['multiple']:.2f}x", "" if row["mean"] is None else value_text(row["mean"]))
            for row in read_json(folder / "metrics.json")["methods"]
        ],
    )


def _moe(folder: Path) -> str:
    return _networks(read_json(folder / "metrics.json")["runs"])


def _adapt(folder: Path) -> str:
    return _table(
        ("mode", "parameters", "mean on test"),
        [
            (row["label"], count_text(row["model_params"]), "" if row["mean"] is None else value_text(row["mean"]))
            for row in read_json(folder / "metrics.json").get("modes", [])
        ],
    )


def _report(folder: Path) -> str:
    found = read_json(folder / "metrics.json")
    rows = [
        {"label": f"**{name}**" if name == found["best"] else name, "delta_mtl": value}
        | {"params": found["params"][name], "delta_mtl_val": found["delta_mtl_val"][name]}
        for name, value in found["delta_mtl"].items()
    ]
    return f"{_networks(rows)}\n\nThe page is `index.html`, among the artifacts."


def _networks(rows: Iterable[Row]) -> str:
    return _table(
        ("network", "parameters", "Δ_MTL on test, %", "on validation"),
        [
            (
                row["label"],
                count_text(row["params"]),
                *(percent_text(row[key]) for key in ("delta_mtl", "delta_mtl_val")),
            )
            for row in rows
        ],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a stage that had nothing to do has no rows."""
    if not rows:
        return "This study asks for nothing of this stage."
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


NOTES: Mapping[str, Callable[[Path], str]] = {
    "prepare": _prepare,
    "pretrain": _pretrain,
    "affinity": _affinity,
    "trees": _trees,
    "branched": _branched,
    "taps": _taps,
    "moe": _moe,
    "adapt": _adapt,
    "report": _report,
}
