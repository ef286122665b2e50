"""What training with experts found -> values for tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

from pipeline.artifacts import read_json
from pipeline.report.network import Network, Row
from pipeline.report.records import Metric, network_of, pick

MOE, DENSE, SCRATCH = "moe", "dense", "scratch"


@dataclass(frozen=True, kw_only=True)
class ExpertLayer:
    """One layer that is a mixture of experts."""

    name: str
    location: int
    experts: int
    top_k: int
    channels: int
    hidden: int

    @property
    def expert_weights(self) -> int:
        """The weights of one expert, an MLP of two matrices; biases, which some settings leave out, not counted."""
        return 2 * self.channels * self.hidden


@dataclass(frozen=True, kw_only=True)
class Single:
    """A task's single-task network, trained by another stage."""

    job: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """All tasks learned by one method, with experts one for each λ, in one job or in one a task.

    `picks` [L, M, E] are shares of a data set's choices, `probs` [L, M, E] mean probabilities P(i|j), `mi` [L] is
    I(expert; data set) in nats: L layers, M data sets, E experts. All three are empty without experts.
    """

    name: str
    label: str
    method: str
    lam: float | None
    seed: int
    jobs: Sequence[str]
    epochs: Sequence[int]
    seconds: float
    params: int
    flops: int
    val: Mapping[str, float]
    test: Mapping[str, float]
    delta_mtl: float
    delta_mtl_val: float
    picks: Sequence[Sequence[Sequence[float]]]
    probs: Sequence[Sequence[Sequence[float]]]
    mi: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Moe:
    """All results of the networks with experts and of what they are compared with; `layers` from input to output."""

    tasks: Mapping[str, Metric]
    datasets: Sequence[str]
    layers: Sequence[ExpertLayer]
    runs: Sequence[Run]
    chosen: Run
    networks: Sequence[Network]
    singles: Mapping[str, Single]

    @property
    def by_lam(self) -> list[Run]:
        """The networks with experts, by rising λ."""
        rows = [(run.lam, run) for run in self.runs if run.method == MOE and run.lam is not None]
        return [run for _, run in sorted(rows, key=lambda pair: pair[0])]

    @property
    def compared(self) -> list[Run]:
        """The network with experts at the chosen λ, and that with which it is shown: λ = 0, or else the greatest λ."""
        first = next((run for run in self.by_lam if run.lam == 0 and run is not self.chosen), None)
        other = first or (self.by_lam[-1] if self.chosen.lam == 0 else self.chosen)
        return sorted({run.name: run for run in (other, self.chosen)}.values(), key=self.by_lam.index)

    @property
    def others(self) -> list[Run]:
        """The methods that the networks with experts are compared with."""
        return [run for run in self.runs if run.method != MOE]

    @property
    def most_information(self) -> float:
        """The most that an expert can tell of the data set, in nats."""
        return log(len(self.datasets))

    def method(self, name: str) -> Run | None:
        """The one run of a method, where it was trained."""
        return next((run for run in self.runs if run.method == name), None)

    def job(self, run: Run, task: str) -> str:
        """The job that learned a task: a single-task network's own where the run holds it, then the others in order."""
        if len(run.jobs) == 1:
            return run.jobs[0]
        alone = {name: single.job for name, single in self.singles.items() if single.job in run.jobs}
        rest = [job for job in run.jobs if job not in alone.values()]
        return (alone | dict(zip((name for name in run.test if name not in alone), rest, strict=True)))[task]


def read_moe(path: Path, tasks: Sequence[str], singles: Mapping[str, Row]) -> Moe | None:
    """Map the metrics of the stage to its results, in the order of the study's tasks, or to None where it left none.

    `singles` are the study's single-task networks, which may be among those that the experts are compared with.
    """
    if not path.exists():
        return None
    raw = read_json(path)
    if not raw["runs"]:
        return None
    empty: dict[str, list] = {"picks": [], "probs": [], "mi": []}
    runs = [pick(Run, row if row["method"] == MOE else row | empty) for row in raw["runs"]]
    return Moe(
        tasks={task: pick(Metric, raw["tasks"][task]) for task in tasks if task in raw["tasks"]},
        datasets=raw["datasets"],
        layers=[pick(ExpertLayer, row) for row in raw["layers"]],
        runs=runs,
        chosen=next(run for run in runs if run.name == raw["chosen"]),
        networks=[_network(row, runs) for row in raw["networks"]],
        singles={task: pick(Single, row) for task, row in singles.items()},
    )


def _network(row: Row, runs: Sequence[Run]) -> Network:
    return network_of(row, MOE, next(run.seed for run in runs if run.name == row["name"]))
