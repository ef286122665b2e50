"""What task adaptive parameter sharing (TAPS) found -> values for tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.artifacts import read_json
from pipeline.report.network import Network, Row
from pipeline.report.records import network_of, pick

TAPS = "taps"


@dataclass(frozen=True, kw_only=True)
class Base:
    """The network that all tasks start from; `name` and `job` are empty where it is nobody's single-task network."""

    kind: str
    name: str
    job: str
    params: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One gated layer of the backbone; `type` is that of its module."""

    name: str
    type: str
    params: int
    location: int


@dataclass(frozen=True, kw_only=True)
class Target:
    """One task learnt from the base; `chosen` names the TAPS run that validation chose for it."""

    metric: str
    higher_is_better: bool
    chosen: str

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One task trained once: by TAPS at one λ, or by one of the methods that it is compared with (without gates)."""

    name: str
    method: str
    task: str
    lam: float | None
    lr: float
    seed: int
    job: str
    epoch: int
    val: float
    test: float
    scores: Sequence[float] | None
    active: Sequence[bool] | None
    layers_share: float | None
    params_share: float
    own_params: int
    flops: int
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to learn all tasks, with the run of each; TAPS has one per λ, and one without λ: the chosen runs."""

    method: str
    lam: float | None
    label: str
    test: Mapping[str, float]
    mean: float | None
    s_score: float | None
    multiple: float
    bytes: int
    runs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Taps:
    """All results of TAPS and of what it is compared with; `layers` from input to output."""

    base: Base
    joint: bool
    threshold: float
    layers: Sequence[Layer]
    tasks: Mapping[str, Target]
    runs: Sequence[Run]
    methods: Sequence[Method]
    networks: Sequence[Network]

    @cached_property
    def run(self) -> Mapping[str, Run]:
        """The runs by their names."""
        return {run.name: run for run in self.runs}

    @property
    def by_lam(self) -> list[Method]:
        """TAPS at each λ, by rising λ."""
        rows = [(row.lam, row) for row in self.methods if row.method == TAPS and row.lam is not None]
        return [row for _, row in sorted(rows, key=lambda pair: pair[0])]

    @property
    def chosen(self) -> Method:
        """TAPS at the λ that validation chose for each task."""
        return next(row for row in self.methods if row.method == TAPS and row.lam is None)

    @property
    def others(self) -> list[Method]:
        """The methods that TAPS is compared with."""
        return [row for row in self.methods if row.method != TAPS]

    @property
    def one_metric(self) -> bool:
        """Whether all tasks are measured alike, so that one axis, or a mean, has a meaning."""
        return len({(target.metric, target.higher_is_better) for target in self.tasks.values()}) == 1

    def along(self, task: str) -> list[Run]:
        """A task's runs of TAPS, by rising λ."""
        return [run for row in self.by_lam if (run := self.of(row, task))]

    def of(self, row: Method, task: str) -> Run | None:
        """A method's run for a task, where it has one."""
        return self.run[row.runs[task]] if task in row.runs else None


def read_taps(path: Path, tasks: Sequence[str]) -> Taps | None:
    """Map the metrics of the stage to its results, in the order of the study's tasks, or to None where it left none."""
    if not path.exists():
        return None
    raw = read_json(path)
    if not raw["runs"]:
        return None
    runs = [pick(Run, row) for row in raw["runs"]]
    return Taps(
        base=pick(Base, raw["base"]),
        joint=raw["joint"],
        threshold=raw["threshold"],
        layers=[pick(Layer, row) for row in raw["layers"]],
        tasks={task: pick(Target, raw["tasks"][task]) for task in tasks if task in raw["tasks"]},
        runs=runs,
        methods=[pick(Method, row) for row in raw["methods"]],
        networks=[_network(row, runs) for row in raw["networks"]],
    )


def _network(row: Row, runs: Sequence[Run]) -> Network:
    """Its jobs are those of the tasks, all of one seed."""
    (seed,) = {run.seed for run in runs if run.job in row["keys"]}
    return network_of(row, TAPS, seed)
