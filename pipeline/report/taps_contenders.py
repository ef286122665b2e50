"""Results of TAPS -> its networks for all tasks of the study, and those of the methods that it is compared with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.report.found_taps import TAPS, Method, Run, Taps
from pipeline.report.network import Contender, Network

ADAPTED = "adapted networks"  # fine-tuning, LoRA and other ways to make one base learn each task


def taps_contenders(taps: Taps, trained: Sequence[Network]) -> Iterator[Contender]:
    """Yield what covers all tasks; training times hold those of the base, but not those of other learning rates."""
    before = sum(network.seconds / len(network.seeds) for network in trained if taps.base.job in network.keys)
    for network in taps.networks:
        timed = replace(network, seconds=network.seconds + before)
        yield Contender(network=timed, group="TAPS", sketch=_layers(taps, network))
    own = next((n for n in trained if taps.base.kind == "task" and n.name == taps.base.name), None)
    tasks = {task for network in trained for task in network.test}
    for method in taps.others:
        covered = {*method.test, *(own.test if own else ())}
        if covered == tasks:
            yield Contender(network=_network(taps, method, own, before), group=ADAPTED)


def _network(taps: Taps, method: Method, own: Network | None, before: float) -> Network:
    """A method's networks of all tasks beside their base; a base that is a task's own network solves that task."""
    runs = [taps.run[name] for name in method.runs.values()]
    jobs = {run.job: run for run in runs}
    values: dict[str, Any] = {
        split: dict(getattr(own, split) if own else {}) | {run.task: (getattr(run, split),) for run in runs}
        for split in ("val", "test")
    }
    return Network(
        name=method.method,
        label=method.label,
        strategy=TAPS,
        request="",
        params=(own.params if own else taps.base.params) + sum(run.own_params for run in runs),
        flops=(own.flops if own else 0) + sum(run.flops for run in runs),
        seconds=before + sum(run.seconds for run in jobs.values()),
        seeds=(runs[0].seed,),
        keys=tuple(jobs),
        epochs=tuple(run.epoch for run in jobs.values()),
        **values,
    )


def _layers(taps: Taps, network: Network) -> Mapping[str, Any]:
    found: Mapping[str, Run] = {run.task: run for run in taps.runs if run.job in network.keys and run.active}
    return {"layers": {task: [int(open_) for open_ in run.active or ()] for task, run in found.items()}}
