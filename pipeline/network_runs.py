"""The networks of a study as runs of tracking, so that one list holds them all: those that one job trained have theirs.

A network that several jobs make up (one a task, from one base), and the single-task networks together, get a run here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.artifacts import digest
from pipeline.job_runs import MOST
from pipeline.report.network import Network
from pipeline.report.study import Study
from pipeline.tracked_run import Run
from pipeline.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One network for all tasks, of its first seed: how tables call it, the jobs it is made of, what it reaches."""

    name: str
    label: str
    strategy: str
    seed: int
    jobs: tuple[str, ...]
    test: Mapping[str, float]
    metrics: Mapping[str, float]


def network_entry(study: Study, network: Network) -> Entry:
    """Map a network of the study to its entry."""
    one_job_a_seed = len(network.keys) == len(network.seeds)
    base = study.baselines.get(study.config.taps.base) if network.strategy == "taps" else None
    return Entry(
        name=network.name,
        label=network.label,
        strategy=network.strategy,
        seed=network.seeds[0],
        # A base that is one task's network solves that task.
        jobs=(*(network.keys[:1] if one_job_a_seed else network.keys), *([base.job] if base else [])),
        test={task: values[0] for task, values in network.test.items()},
        metrics=_metrics(study.deltas(network)[0], network.params, network.flops),
    )


def baseline_entry(study: Study) -> Entry:
    """Map a study to its single-task networks, as one."""
    rows = study.baselines
    return Entry(
        name="single-all",
        label="single-task networks",
        strategy="single",
        seed=study.config.seed,
        jobs=tuple(row.job for row in rows.values()),
        test={task: row.test for task, row in rows.items()},
        metrics=_metrics(0.0, sum(row.params for row in rows.values()), sum(row.flops for row in rows.values())),
    )


def network_run(study: Study, entry: Entry, tracker: Tracker, parent: Run, tags: Mapping[str, str]) -> Run:
    """The run of a network: its job's, or one that is made here, under the report's."""
    if len(entry.jobs) == 1 and (own := tracker.known(entry.jobs[0])):
        return own
    own = {"strategy": entry.strategy, "method": entry.strategy, "task": "all", "stage": "report"}
    kind, _, rest = entry.name.partition("-")
    made = tracker.run(
        f"network-{digest(entry.jobs)}",
        name="-".join((kind, study.config.backbone.name, rest or "all", f"s{entry.seed}")),
        tags={**tags, **own},
        params={"network": entry.label, "tasks": ",".join(study.tasks), "jobs": " ".join(entry.jobs)},
        parent=parent,
    )
    final = {f"final/{task}_{study.baselines[task].metric}": value for task, value in entry.test.items()}
    made.finish({**entry.metrics, **(final if len(final) + len(entry.metrics) <= MOST else {})})
    return made


def split_entries(study: Study) -> Sequence[Entry]:
    """The networks that no run shows yet: those of several jobs, each once."""
    every = [*(network_entry(study, network) for network in study.networks), baseline_entry(study)]
    return list({entry.jobs: entry for entry in reversed(every) if len(entry.jobs) > 1}.values())


def _metrics(delta: float, params: int, flops: int) -> dict[str, float]:
    return {"final/delta_mtl": delta, "params_m": params / 1e6, "gmacs": flops / 2e9}
