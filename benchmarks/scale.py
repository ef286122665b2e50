"""The papers' studies on clusters of 1 to 1,000 GPUs, simulated.    python -m benchmarks.scale    (half a minute)

What is assumed of machines stands in capitals below; nothing here ran on a GPU. Columns: `time` is the makespan, the
mean over some seeds, `longest first` the same with each wave's jobs sorted; what follows are shares of all GPUs over
all that time, of which only `useful` is training. `stopped` counts jobs that machine.yaml's max_failures would give up.
docs/scale.md says what follows from it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.cluster import Cluster, Job, seconds_of, simulate
from benchmarks.loads import SIZES, Load, Wave, waves
from pipeline.jobs import usable_ranks
from pipeline.machine import Machine
from pipeline.plan_text import table, time_text

FLOPS, THIN_FLOPS, THIN = 30e12, 10e12, ("decathlon", "celeba")  # a second and GPU, as in the presets' own notes
GPUS = 8  # of a node
IN_NODE, BETWEEN_NODES = 100e9, 10e9  # bytes a second of an all-reduce, none of it hidden behind the backward pass
HOUR = 3600.0
# Mean time between deaths of a node. Steady: near that of Llama 3's 2,048 nodes, 419 interruptions in 54 days.
MTBF = {"steady": 5000 * HOUR, "spot": 24 * HOUR}
REPAIR, NOTICE, START = HOUR, 30.0, 20.0  # start: of a worker group, measured on a CPU
SLOW_NODES, SLOW_FACTOR = 0.02, 1.2
SEEDS = range(3)
SHARES = ("useful", "exchange", "start", "lost", "slow", "waiting", "tail", "down", "driver")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A cluster to simulate: its GPUs, how long its nodes live, and the most workers of a job."""

    gpus: int
    workers: int
    nodes: str = "steady"

    @property
    def cluster(self) -> Cluster:
        return Cluster(
            nodes=-(-self.gpus // GPUS),
            gpus=min(GPUS, self.gpus),
            start=START,
            checkpoint=Machine().checkpoint_seconds,
            mtbf=MTBF[self.nodes],
            notice=NOTICE,
            repair=REPAIR,
            slow_nodes=SLOW_NODES,
            slow_factor=SLOW_FACTOR,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A whole study on a cluster: its seconds, GPU seconds by what became of them, and the jobs given up."""

    seconds: float
    parts: Mapping[str, float]
    stopped: int


STEADY = [(1, 1), (8, 1), (8, 8), (96, 1), (96, 8), (96, 96), (1000, 8)]
SHAPES = [*(Shape(gpus=gpus, workers=most) for gpus, most in STEADY), Shape(gpus=96, workers=8, nodes="spot")]


def main() -> None:
    for name in SIZES:
        study = waves(name)
        total = sum(item.flops for wave in study for item in wave.loads)
        print(f"{name}: {sum(len(wave.loads) for wave in study)} jobs, {total / 1e18:.1f} EFLOP")
        rows = [("GPUs", "nodes", "workers", "time", "longest first", *SHARES, "stopped")]
        print("\n".join(table([*rows, *(_row(name, study, shape) for shape in SHAPES)], left=(1,))), end="\n\n")


def timed(load: Load, most: int, flops: float) -> tuple[Job, float]:
    """Map a load to its gang, and the share of its seconds in which ranks exchange gradients, at every step."""
    workers = usable_ranks(load.job, most)
    exchange = 2 * (workers - 1) / workers * load.gradients / (IN_NODE if workers <= GPUS else BETWEEN_NODES)
    seconds = load.flops / (flops * workers) + load.steps * exchange
    return Job(seconds=seconds, workers=workers), load.steps * exchange / seconds


def outcome(study: Sequence[Wave], shape: Shape, flops: float, seed: int, *, longest_first: bool = False) -> Outcome:
    """Map a study's waves, one after the other, to what they take."""
    cluster, seconds, stopped = shape.cluster, 0.0, 0
    parts: dict[str, float] = dict.fromkeys(SHARES, 0.0)
    for number, wave in enumerate(study):
        gangs = [timed(load, shape.workers, flops) for load in wave.loads]
        if longest_first:
            gangs.sort(key=lambda gang: -gang[0].seconds)
        jobs = [job for job, _ in gangs]
        trace = simulate(jobs, cluster, seed * len(study) + number)
        seconds += wave.driver + trace.makespan
        spent = seconds_of(trace, jobs, cluster) | {"driver": wave.driver * cluster.slots}
        spent["exchange"] = sum(share * job.seconds * job.workers for job, share in gangs)
        spent["useful"] -= spent["exchange"]
        parts = {part: parts[part] + spent[part] for part in SHARES}
        starts = Counter(attempt.job for attempt in trace.attempts)
        stopped += sum(times > 1 + Machine().max_failures for times in starts.values())
    return Outcome(seconds=seconds, parts=parts, stopped=stopped)


def _row(name: str, study: Sequence[Wave], shape: Shape) -> tuple[str, ...]:
    flops = THIN_FLOPS if name in THIN else FLOPS
    found = [outcome(study, shape, flops, seed) for seed in SEEDS]
    ordered = [outcome(study, shape, flops, seed, longest_first=True) for seed in SEEDS]
    whole = sum(sum(one.parts.values()) for one in found)
    shares = (f"{sum(one.parts[part] for one in found) / whole:.1%}" for part in SHARES)
    times = (time_text(mean(one.seconds for one in runs)) for runs in (found, ordered))
    stopped = f"{mean(one.stopped for one in found):.1f}"
    return f"{shape.gpus:,}", shape.nodes, str(shape.workers), *times, *shares, stopped


if __name__ == "__main__":
    main()
