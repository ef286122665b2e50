"""Results -> rows: the table of the page, the tidy summary, csv files."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyarrow as pa

from models.accounting import delta_mtl
from models.branch_tree import BranchTree
from pipeline.report.beside_paper import printed_tables
from pipeline.report.found_trees import gap
from pipeline.report.further import further_tables
from pipeline.report.network import SINGLE, TRIVIAL, Network, Row
from pipeline.report.study import Study

_TEXTS, _NUMBERS = ("name", "strategy", "request", "task", "metric", "jobs"), ("params", "flops", "seeds")
_VALUES = ("test", "val", "single_test", "single_val", "trivial_test", "change", "delta_mtl", "delta_mtl_std")
SUMMARY = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.int64()) for name in _NUMBERS),
        ("higher_is_better", pa.bool_()),
        *((name, pa.float64()) for name in _VALUES),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the results table; `test` and `val` are means over seeds, `spreads` standard deviations on test."""

    name: str
    label: str
    strategy: str
    request: str
    params: int
    flops: int
    test: Mapping[str, float]
    val: Mapping[str, float]
    delta: float
    spread: float | None
    spreads: Mapping[str, float]
    jobs: tuple[str, ...]
    seeds: int


def result_lines(study: Study) -> list[Line]:
    """Map a study to its lines: the trivial predictor, the single-task networks, then every network in its order."""
    baselines = study.baselines
    trivial = {task: row.trivial_test for task, row in baselines.items()}
    common = {"request": "", "spread": None, "spreads": {}}
    first = [
        Line(
            name=TRIVIAL,
            label="trivial predictor",
            strategy=TRIVIAL,
            params=0,
            flops=0,
            test=trivial,
            val={task: row.trivial_val for task, row in baselines.items()},
            delta=delta_mtl(
                trivial,
                {task: row.test for task, row in baselines.items()},
                {task: row.higher_is_better for task, row in baselines.items()},
            ),
            jobs=(),
            seeds=0,
            **common,
        ),
        Line(
            name=SINGLE,
            label="single-task networks",
            strategy="single",
            params=sum(row.params for row in baselines.values()),
            flops=sum(row.flops for row in baselines.values()),
            test={task: row.test for task, row in baselines.items()},
            val={task: row.val for task, row in baselines.items()},
            delta=0.0,
            jobs=tuple(row.job for row in baselines.values()),
            seeds=1,
            **common,
        ),
    ]
    return first + [_line(study, network) for network in study.networks]


def _line(study: Study, network: Network) -> Line:
    deltas = study.deltas(network)
    return Line(
        name=network.name,
        label=network.label,
        strategy=network.strategy,
        request=network.request,
        params=network.params,
        flops=network.flops,
        test={task: mean(network.test[task]) for task in study.tasks},
        val={task: mean(network.val[task]) for task in study.tasks},
        delta=mean(deltas),
        spread=stdev(deltas) if len(deltas) > 1 else None,
        spreads={task: stdev(network.test[task]) for task in study.tasks} if len(deltas) > 1 else {},
        jobs=network.keys,
        seeds=len(network.seeds),
    )


def best_values(study: Study, lines: Sequence[Line]) -> dict[str, float]:
    """Map each task to the best test value that a network for all tasks reaches."""
    trained = [line for line in lines if line.strategy not in (TRIVIAL, "single")]
    return {
        task: (max if row.higher_is_better else min)((line.test[task] for line in trained), default=math.nan)
        for task, row in study.baselines.items()
    }


def summary_rows(study: Study, lines: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """Map lines to tidy rows of the schema SUMMARY: one per network and task."""
    for line in lines:
        for task, row in study.baselines.items():
            yield {
                "name": line.name,
                "strategy": line.strategy,
                "request": line.request,
                "params": line.params,
                "flops": line.flops,
                "task": task,
                "metric": row.metric,
                "higher_is_better": row.higher_is_better,
                "test": line.test[task],
                "val": line.val[task],
                "single_test": row.test,
                "single_val": row.val,
                "trivial_test": row.trivial_test,
                "change": row.change(line.test[task]),
                "delta_mtl": line.delta,
                "delta_mtl_std": line.spread,
                "jobs": " ".join(line.jobs),
                "seeds": line.seeds,
            }


def wide_rows(study: Study, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Map lines to the results table as people paste it: one row a network, one column a task."""
    proofs = {row["name"]: row for row in tree_rows(study)}
    keys = ("request", "branches", "cost", "lower_bound", "gap", "method", "optimal")
    return [
        {"name": line.name, "params": line.params, "multiply_adds": line.flops // 2}
        | {key: proofs.get(line.name, {}).get(key) for key in keys}
        | {f"{task} {row.metric}": line.test[task] for task, row in study.baselines.items()}
        | {"delta_mtl": line.delta, "delta_mtl_std": line.spread, "jobs": " ".join(line.jobs), "seeds": line.seeds}
        for line in lines
    ]


def data_tables(study: Study, lines: Sequence[Line]) -> Iterator[tuple[str, Sequence[Row]]]:
    """Map a study to the tables that stand beside the page as csv, each with its name."""
    yield "results", wide_rows(study, lines)
    chapters = (chapter.tables() for chapter in study.chapters)
    for table in chain(further_tables(study), printed_tables(study.config), *chapters):
        yield table.stem, table.rows


def tree_rows(study: Study) -> list[dict[str, Any]]:
    """Map the chosen trees to rows: size, branches b_1 ... b_D, cost, and for those of a budget what is proved."""
    rows = []
    for tree in study.search.chosen.values():
        row = {"name": tree.name, "label": tree.label, "request": tree.request}
        row |= {"branches": " ".join(map(str, BranchTree(tree.groups).branches))}
        row |= {"params": tree.params, "multiply_adds": tree.flops // 2, "cost": tree.cost}
        asked = {"lower_bound": tree.lower_bound, "gap": gap(tree.cost, tree.lower_bound)}
        asked |= {"method": tree.method, "optimal": tree.optimal}
        rows.append(row | (asked if tree.request else dict.fromkeys(asked)))
    return rows


def headline_metrics(study: Study) -> dict[str, Any]:
    """Map a study to the few numbers that DVC compares; `best` is the best network on validation, not on test."""
    return {
        "best": best_on_validation(study).name,
        "delta_mtl": {network.name: mean(study.deltas(network)) for network in study.networks},
        "delta_mtl_val": {network.name: mean(study.deltas(network, "val")) for network in study.networks},
        "params": {network.name: network.params for network in study.networks},
    }


def best_on_validation(study: Study) -> Network:
    """The network with the highest Δ_MTL on validation; of equals the smallest."""
    return max(study.networks, key=lambda network: (mean(study.deltas(network, "val")), -network.params))


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of equal keys; no rows leave an empty file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        if rows:
            writer.writeheader()
        writer.writerows(rows)
