"""What adapting a network with experts to new data sets found -> values for tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.artifacts import read_json
from pipeline.report.found_moe import ExpertLayer
from pipeline.report.network import Row
from pipeline.report.records import Metric, change, mean_change, pick

FULL, ROUTER = "full", "router"


@dataclass(frozen=True, kw_only=True)
class Base:
    """The network with experts that all modes start from, and the job that trained it."""

    name: str
    job: str


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A task of a new data set; `scratch_*` are of its single-task network, whose parameters include the head."""

    metric: str
    higher_is_better: bool
    scratch_test: float
    scratch_params: int


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to adapt, over all new tasks, with the run of each.

    Parameters and FLOPs are means over the tasks, the former without heads; shares are those of full fine-tuning.
    """

    mode: str
    label: str
    val: Mapping[str, float]
    test: Mapping[str, float]
    mean: float | None
    trained_params: float
    model_params: float
    flops: float
    trained_share: float | None
    params_share: float | None
    flops_share: float | None
    runs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One new task learned once; `picks` [L][E] are its shares of the experts, of which `experts` [L] are left."""

    name: str
    mode: str
    task: str
    lr: float
    seed: int
    job: str
    epoch: int
    seconds: float
    experts: Sequence[int]
    picks: Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Taught:
    """The new tasks learned one after another by one method, a job each.

    `matrix` has a row for the base and for each step, a column for each task: its metric on test once it is learned.
    """

    method: str
    label: str
    new_params: Sequence[int]
    trained_params: Sequence[int]
    matrix: Sequence[Sequence[float | None]]
    jobs: Sequence[str]
    params: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Continual:
    """Continual learning: the tasks old and new, the steps from the base on, the methods."""

    tasks: Mapping[str, Metric]
    steps: Sequence[str]
    methods: Sequence[Taught]

    @property
    def new(self) -> list[str]:
        """The tasks that the steps teach."""
        return list(self.steps[1:])

    def learned(self, method: Taught, task: str) -> int:
        """The step that taught a task; 0 is the base."""
        place = list(self.tasks).index(task)
        return next(step for step, row in enumerate(method.matrix) if row[place] is not None)

    def value(self, method: Taught, step: int, task: str) -> float | None:
        return method.matrix[step][list(self.tasks).index(task)]

    def change(self, method: Taught, step: int, task: str) -> float | None:
        """A task's signed relative change since it was learned, in percent; none until a later step."""
        learned = self.learned(method, task)
        now, then = self.value(method, step, task), self.value(method, learned, task)
        if step <= learned or now is None or then is None:
            return None
        return change(self.tasks[task], now, then)

    def same(self, method: Taught, step: int, task: str) -> bool:
        """Whether a task's metric is to the last bit what it was when the task was learned, at an earlier step."""
        learned = self.learned(method, task)
        return step > learned and self.value(method, step, task) == self.value(method, learned, task)


@dataclass(frozen=True, kw_only=True)
class Adapt:
    """All results of adapting one network with experts; `layers` from input to output."""

    base: Base
    tasks: Mapping[str, NewTask]
    modes: Sequence[Mode]
    runs: Sequence[Run]
    layers: Sequence[ExpertLayer]
    continual: Continual | None

    @cached_property
    def run(self) -> Mapping[str, Run]:
        """The runs by their names."""
        return {run.name: run for run in self.runs}

    @cached_property
    def listed(self) -> frozenset[str]:
        """The jobs that the page can lead to: the base's and those of the runs."""
        return frozenset({self.base.job, *(run.job for run in self.runs)})

    @property
    def full(self) -> Mode | None:
        """Full fine-tuning, where it was trained."""
        return self.mode(FULL)

    def mode(self, name: str) -> Mode | None:
        return next((mode for mode in self.modes if mode.mode == name), None)

    def delta(self, mode: Mode) -> float | None:
        """Δ_MTL of a mode on test over the new tasks, in percent."""
        return mean_change(self.tasks, mode.test, {task: row.scratch_test for task, row in self.tasks.items()})

    def against(self, mode: Mode, other: Mode, split: str = "test") -> float | None:
        """The mean signed relative change of a mode against another, in percent."""
        return mean_change(self.tasks, getattr(mode, split), getattr(other, split))


def read_adapt(path: Path, tasks: Sequence[str]) -> Adapt | None:
    """Map the metrics of the stage to its results, in the order of the study's tasks, or to None where it left none."""
    if not path.exists():
        return None
    raw = read_json(path)
    if not raw["runs"]:
        return None
    return Adapt(
        base=pick(Base, raw["base"]),
        tasks={task: pick(NewTask, raw["tasks"][task]) for task in tasks if task in raw["tasks"]},
        modes=[pick(Mode, row) for row in raw["modes"]],
        runs=[pick(Run, row) for row in raw["runs"]],
        layers=[pick(ExpertLayer, row) for row in raw["layers"]],
        continual=_continual(raw["continual"]) if raw["continual"] else None,
    )


def _continual(row: Row) -> Continual:
    return Continual(
        tasks={task: pick(Metric, row["metrics"][task]) for task in row["tasks"]},
        steps=row["steps"],
        methods=[pick(Taught, method) for method in row["methods"]],
    )
