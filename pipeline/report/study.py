"""What the stages left -> one value that tables, figures and page are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from models.accounting import delta_mtl
from pipeline.artifacts import DatasetManifest, read_json, read_manifests, read_table
from pipeline.config import Config
from pipeline.report.found_trees import ChosenTree, Groups, Row, Search, TrainedTrees, read_search, read_trained

BRANCHED = "branched"  # the stage whose networks become rows
SINGLE, TRIVIAL = "single-task", "trivial"


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
    label: str
    strategy: str
    request: str
    groups: Groups
    params: int
    flops: int
    seconds: float
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    epochs: tuple[int, ...]
    val: Mapping[str, tuple[float, ...]]
    test: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """All results: `trials` holds the single-task networks' epochs under the name `single-task`."""

    config: Config
    manifests: Mapping[str, DatasetManifest]
    baselines: Mapping[str, Baseline]
    networks: Sequence[Network]
    affinity: Sequence[Row]
    search: Search
    front: Sequence[Row]
    trained: TrainedTrees
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
    search, tasks = read_search(chosen), chosen["tasks"]
    single, metrics = read_json(base / "pretrain" / "metrics.json"), read_json(base / BRANCHED / "metrics.json")
    names = [field.name for field in fields(Baseline)]
    trials: list[Row] = []
    for task in tasks:
        trials += [{**row, "name": SINGLE} for row in read_table(base / "pretrain" / task / "history.parquet")]
    rows = read_table(base / BRANCHED / "trials.parquet")
    # The trials may hold trees that no budget asked for; those are in `trained` alone.
    trials += [row for row in rows if row["name"] in search.chosen]
    return Study(
        config=config,
        manifests=read_manifests(base / "prepare"),
        baselines={task: Baseline(**{name: single[task][name] for name in names}) for task in tasks},
        networks=[_network(tree, metrics[name], trials) for name, tree in search.chosen.items()],
        affinity=read_table(base / "affinity" / "affinity.parquet"),
        search=search,
        front=read_table(base / "trees" / "trees.parquet"),
        trained=read_trained(read_json(base / BRANCHED / "all_trees.json")),
        trials=trials,
    )


def _network(tree: ChosenTree, metrics: Row, rows: Sequence[Row]) -> Network:
    """The kept epoch is that of the test rows; the validation values are those of the same epoch."""
    mine = [row for row in rows if row["name"] == tree.name]
    test = [row for row in mine if row["split"] == "test"]
    kept = {row["seed"]: (row["key"], row["epoch"]) for row in test}
    val = [row for row in mine if row["split"] == "val" and row["epoch"] == kept[row["seed"]][1]]
    return Network(
        name=tree.name,
        label=tree.label,
        strategy=BRANCHED,
        request=tree.request,
        groups=tree.groups,
        params=metrics["params"],
        flops=metrics["flops"],
        seconds=metrics["seconds"],
        seeds=tuple(kept),
        keys=tuple(key for key, _ in kept.values()),
        epochs=tuple(epoch for _, epoch in kept.values()),
        val=_by_task(val, list(kept)),
        test=_by_task(test, list(kept)),
    )


def _by_task(rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, tuple[float, ...]]:
    values = {(row["task"], row["seed"]): row["value"] for row in rows}
    return {task: tuple(values[task, seed] for seed in seeds) for task in dict.fromkeys(row["task"] for row in rows)}
