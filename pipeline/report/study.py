"""What the stages left -> one value that tables, figures and page are made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from models.accounting import delta_mtl
from pipeline.artifacts import DatasetManifest, read_json, read_manifests, read_table
from pipeline.config import Config
from pipeline.report.adapt import read_adapt_chapter
from pipeline.report.chapter import Chapter
from pipeline.report.found_trees import ChosenTree, Search, TrainedTrees, read_search, read_trained
from pipeline.report.moe import read_moe_chapter
from pipeline.report.network import BRANCHED, SINGLE, Network, Row
from pipeline.report.taps import read_taps_chapter

# The strategies beside the trees: each maps the folder of all artifacts and the study's tasks to its chapter, or to
# None where it was not trained.
CHAPTERS: Mapping[str, Callable[[Path, Sequence[str]], Chapter | None]] = {
    "taps": read_taps_chapter,
    "moe": read_moe_chapter,
    "adapt": read_adapt_chapter,
}


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
class Study:
    """All results: of the trees, and in `chapters` of the other strategies that were trained.

    `trials` holds the trees' epochs, and those of the single-task networks under the name `single-task`; `measured`
    maps (job key, task, metric) to the value on test, further metrics too, for the jobs of every strategy.
    """

    config: Config
    manifests: Mapping[str, DatasetManifest]
    baselines: Mapping[str, Baseline]
    trees: Sequence[Network]
    affinity: Sequence[Row]
    search: Search
    front: Sequence[Row]
    trained: TrainedTrees
    trials: Sequence[Row]
    chapters: Sequence[Chapter] = ()
    measured: Mapping[tuple[str, str, str], float] = field(default_factory=dict)

    @property
    def networks(self) -> list[Network]:
        """The networks for all tasks: the trees, then those of the other strategies."""
        return [*self.trees, *(network for chapter in self.chapters for network in chapter.networks())]

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


def distinct(networks: Sequence[Network]) -> list[tuple[Network, str]]:
    """The networks without repetition, each with all its labels: a budget's tree may be the shared one again."""
    labels: dict[tuple[str, ...], list[str]] = {}
    for network in networks:
        labels.setdefault(network.keys, []).append(network.label)
    first = {network.keys: network for network in reversed(networks)}
    return [(first[keys], " = ".join(names)) for keys, names in labels.items()]


def read_study(config: Config, base: Path) -> Study:
    """Read what the stages left under a folder of artifacts."""
    chosen = read_json(base / "trees" / "chosen.json")
    search, tasks = read_search(chosen), chosen["tasks"]
    single, metrics = read_json(base / "pretrain" / "metrics.json"), read_json(base / BRANCHED / "metrics.json")
    names = [one.name for one in fields(Baseline)]
    trials: list[Row] = []
    for task in tasks:
        trials += [{**row, "name": SINGLE} for row in read_table(base / "pretrain" / task / "history.parquet")]
    rows = read_table(base / BRANCHED / "trials.parquet")
    # The trials may hold trees that no budget asked for; those are in `trained` alone.
    trials += [row for row in rows if row["name"] in search.chosen]
    primary = [row for row in trials if row["metric"] == single[row["task"]]["metric"]]
    return Study(
        config=config,
        manifests=read_manifests(base / "prepare"),
        baselines={task: Baseline(**{name: single[task][name] for name in names}) for task in tasks},
        trees=[_network(tree, metrics[name], primary) for name, tree in search.chosen.items()],
        affinity=read_table(base / "affinity" / "affinity.parquet"),
        search=search,
        front=read_table(base / "trees" / "trees.parquet"),
        trained=read_trained(read_json(base / BRANCHED / "all_trees.json")),
        trials=trials,
        chapters=[chapter for read in CHAPTERS.values() if (chapter := read(base, tasks))],
        measured=_measured(base),
    )


def _measured(base: Path) -> dict[tuple[str, str, str], float]:
    files = [*base.glob("pretrain/*/history.parquet"), *base.glob("*/trials.parquet")]
    rows = (row for file in files for row in read_table(file) if row["split"] == "test")
    return {(row["key"], row["task"], row["metric"]): row["value"] for row in rows}


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
