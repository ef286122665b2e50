"""What the stages left -> one value that tables, figures and page are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from models.accounting import delta_mtl
from pipeline.artifacts import DatasetManifest, read_json, read_manifests, read_table
from pipeline.config import Config

# Stages whose trained networks become rows, each with metrics.json, trials.parquet and <name>-s<seed>/ bundles.
STRATEGIES = ("branched",)
SINGLE, TRIVIAL = "single-task", "trivial"

Groups = tuple[tuple[int, ...], ...]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One task's yardsticks: its single-task network and the best constant prediction."""

    metric: str
    higher_is_better: bool
    val: float
    test: float
    trivial_val: float
    trivial_test: float
    params: int
    flops: int
    epoch: int
    seconds: float
    job: str

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"

    def change(self, value: float) -> float:
        """Map a value on test to its signed relative change against the single-task network, in percent."""
        return delta_mtl({"": value}, {"": self.test}, {"": self.higher_is_better})


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network for all tasks, trained once per seed; `val` and `test` hold a value per seed, in that order."""

    name: str
    strategy: str
    request: str
    params: int
    flops: int
    seconds: float
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    epochs: tuple[int, ...]
    val: Mapping[str, tuple[float, ...]]
    test: Mapping[str, tuple[float, ...]]
    groups: Groups = ()

    @property
    def label(self) -> str:
        """Its budget as people write it (1.7×, 0.8 M), or its name where it was not asked for by a budget."""
        if not self.request:
            return self.name
        return self.request[:-1] + "×" if self.request.endswith("x") else f"{float(self.request) / 1e6:,.4g} M"


@dataclass(frozen=True, kw_only=True)
class Study:
    """All results: `trials` holds the single-task networks' epochs under the name `single-task`."""

    config: Config
    manifests: Mapping[str, DatasetManifest]
    baselines: Mapping[str, Baseline]
    networks: Sequence[Network]
    affinity: Sequence[Row]
    front: Sequence[Row]
    trials: Sequence[Row]

    @property
    def tasks(self) -> list[str]:
        return list(self.baselines)

    @property
    def epochs(self) -> int:
        return max(row["epoch"] for row in self.trials)

    def deltas(self, network: Network, split: str = "test") -> list[float]:
        """Map a network to its Δ_MTL of every seed, in percent."""
        values: Mapping[str, tuple[float, ...]] = getattr(network, split)
        reference = {task: getattr(baseline, split) for task, baseline in self.baselines.items()}
        higher = {task: baseline.higher_is_better for task, baseline in self.baselines.items()}
        return [
            delta_mtl({task: values[task][index] for task in self.tasks}, reference, higher)
            for index in range(len(network.seeds))
        ]

    def distinct(self) -> list[tuple[Network, str]]:
        """The networks without repetition, each with all its labels: a budget's tree may be the shared one again."""
        labels: dict[tuple[str, ...], list[str]] = {}
        for network in self.networks:
            labels.setdefault(network.keys, []).append(network.label)
        first = {network.keys: network for network in reversed(self.networks)}
        return [(first[keys], " = ".join(names)) for keys, names in labels.items()]


def read_study(config: Config, base: Path) -> Study:
    """Read what the stages left under a folder of artifacts."""
    chosen = read_json(base / "trees" / "chosen.json")
    single = read_json(base / "pretrain" / "metrics.json")
    names = [field.name for field in fields(Baseline)]
    trials: list[Row] = []
    for task in chosen["tasks"]:
        trials += [{**row, "name": SINGLE} for row in read_table(base / "pretrain" / task / "history.parquet")]
    networks: list[Network] = []
    for strategy in STRATEGIES:
        rows = read_table(base / strategy / "trials.parquet")
        metrics = read_json(base / strategy / "metrics.json")
        trees = {tree["name"]: tree for tree in chosen["trees"]} if strategy == "branched" else {}
        # JSON keeps names sorted; the trials keep the order in which the networks were asked for.
        ordered = dict.fromkeys(row["name"] for row in rows)
        networks += [_network(strategy, name, metrics[name], rows, trees.get(name, {})) for name in ordered]
        trials += rows
    return Study(
        config=config,
        manifests=read_manifests(base / "prepare"),
        baselines={task: Baseline(**{name: single[task][name] for name in names}) for task in chosen["tasks"]},
        networks=networks,
        affinity=read_table(base / "affinity" / "affinity.parquet"),
        front=read_table(base / "trees" / "trees.parquet"),
        trials=trials,
    )


def _network(strategy: str, name: str, metrics: Row, rows: Sequence[Row], tree: Row) -> Network:
    """The kept epoch is that of the test rows; the validation values are those of the same epoch."""
    mine = [row for row in rows if row["name"] == name]
    test = [row for row in mine if row["split"] == "test"]
    kept = {row["seed"]: (row["key"], row["epoch"]) for row in test}
    val = [row for row in mine if row["split"] == "val" and row["epoch"] == kept[row["seed"]][1]]
    return Network(
        name=name,
        strategy=strategy,
        request=tree.get("request", ""),
        params=metrics["params"],
        flops=metrics["flops"],
        seconds=metrics["seconds"],
        seeds=tuple(kept),
        keys=tuple(key for key, _ in kept.values()),
        epochs=tuple(epoch for _, epoch in kept.values()),
        val=_by_task(val, list(kept)),
        test=_by_task(test, list(kept)),
        groups=tuple(tuple(row) for row in tree.get("groups", ())),
    )


def _by_task(rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, tuple[float, ...]]:
    values = {(row["task"], row["seed"]): row["value"] for row in rows}
    return {task: tuple(values[task, seed] for seed in seeds) for task in dict.fromkeys(row["task"] for row in rows)}
