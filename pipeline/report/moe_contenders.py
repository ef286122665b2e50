"""Results of training with experts -> those networks, and those that they are compared with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.report.found_moe import DENSE, MOE, SCRATCH, Moe, Run
from pipeline.report.network import Contender, Network

JOINT = "dense networks"


def moe_contenders(moe: Moe, trained: Sequence[Network]) -> Iterator[Contender]:
    """Yield what covers all tasks; single-task networks come from another stage, and are left to it."""
    runs = {run.name: run for run in moe.runs}
    for network in moe.networks:
        yield Contender(
            network=network,
            group="MoE" if runs[network.name].method == MOE else JOINT,
            sketch=_experts(moe, runs[network.name]),
        )
    tasks = {task for network in trained for task in network.test}
    for run in moe.others:
        if run.method not in (DENSE, SCRATCH) and run.test.keys() == tasks:
            yield Contender(network=_network(run), group=JOINT)


def _network(run: Run) -> Network:
    """One network a task; `flops` of the run are the mean over tasks."""
    values: dict[str, Any] = {
        split: {task: (value,) for task, value in getattr(run, split).items()} for split in ("val", "test")
    }
    return Network(
        name=run.name,
        label=run.label,
        strategy=MOE,
        request="",
        params=run.params,
        flops=run.flops * len(run.test),
        seconds=run.seconds,
        seeds=(run.seed,),
        keys=tuple(run.jobs),
        epochs=tuple(run.epochs),
        **values,
    )


def _experts(moe: Moe, run: Run) -> Mapping[str, Any]:
    if not run.picks:
        return {}
    shares = [[[round(share, 3) for share in row] for row in layer] for layer in run.picks]
    return {"experts": shares, "datasets": list(moe.datasets)}
