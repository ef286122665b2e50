"""A study's settings -> one screen of text: its data, tasks and networks, the jobs of each stage, time and disk.

Nothing is prepared, trained or written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from models.branch_tree import BranchTree
from models.bundle_files import offline
from models.search_problem import MOST_TASKS
from models.sharing.moe import MoeModel
from models.sharing.taps import TapsModel
from models.spec import ModelSpec
from models.tree_search import FEW_TREES
from pipeline.adapting import base_of, taps_jobs
from pipeline.budgets import Costs, requests
from pipeline.config import Config
from pipeline.datasets import SPLITS
from pipeline.machine import Machine
from pipeline.moe_jobs import joint_tasks, moe_spec
from pipeline.plan_costs import (
    ImageCosts,
    Speed,
    image_costs,
    job_flops,
    kept_bytes,
    measured_speed,
    shared_spec,
    steps_of,
    unit_costs,
)
from pipeline.plan_data import CLASSES, DataPlan, look, manifests_of
from pipeline.plan_jobs import Planned, planned_jobs, search_method, stages_of, trees_in_all, untrained
from pipeline.plan_text import bytes_text, count_text, flops_text, span_text, table, time_text
from pipeline.preflight import check_study, remarks

UNKNOWN = "?"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was found: `text` for people, `problems` for whoever must mend something first."""

    text: str
    problems: Sequence[str]


def plan(config: Config, machine: Machine, *, timing: bool = True) -> Plan:
    """Map settings and the data on this disk to a plan. ValueError where the settings are wrong for any data."""
    data = [look(name, config, machine) for name in config.datasets]
    manifests, problems = manifests_of(data), [f"{item.manifest.name}: {item.problem}" for item in data if item.problem]
    with torch.device("meta"):
        check_study(config, manifests, weights=False)
    spec = shared_spec(config, manifests)
    costs = unit_costs(spec)
    jobs = planned_jobs(config, manifests, costs)
    speed = measured_speed(config, spec, manifests, machine) if timing else None
    parts = [
        _data_lines(config, data),
        _task_lines(spec, costs, data),
        _network_lines(config, manifests, spec, costs),
        _job_lines(jobs, manifests, image_costs(spec, manifests), speed),
        _disk_lines(config, data, jobs, costs, machine.checkpoints),
    ]
    parts += [[f"note: {remark}"] for remark in remarks(config)]
    if problems:
        parts.append(["to be mended first:", *(f"  {line}" for line in problems)])
    return Plan(text="\n\n".join("\n".join(lines) for lines in parts), problems=problems)


def _data_lines(config: Config, data: Sequence[DataPlan]) -> list[str]:
    rows = [("data set", "reader", "size", "train", "val", "test", "root")]
    for item in data:
        counts = item.manifest.counts
        train, val, test = (f"{counts[split]:,}" if counts else UNKNOWN for split in SPLITS)
        height, width = item.manifest.size
        rows.append((item.manifest.name, item.reader, f"{height} x {width}", train, val, test, item.root or "-"))
    lines = table(rows, left=(0, 1, 2, 6))
    if any(not item.manifest.counts for item in data):
        lines.append("?: not known as long as the data set must be mended, see below")
    if any(item.assumed for item in data):
        lines.append(f"data sets that can't be read: classes, and so networks, are counted as if they had {CLASSES}")
    return [f"plan of {config.experiment}", "", *lines]


def _task_lines(spec: ModelSpec, costs: Mapping[str, Costs], data: Sequence[DataPlan]) -> list[str]:
    """One line for tasks that are alike."""
    assumed = {item.manifest.name for item in data if item.assumed}
    rows = [("tasks", "kind", "data set", "head", "classes", "head's parameters")]
    alike = groupby(
        zip(spec.tasks, costs["params"][1], strict=True),
        key=lambda pair: (pair[0].kind, pair[0].dataset, pair[0].head, len(pair[0].column.classes), pair[1]),
    )
    for (kind, dataset, head, classes, params), members in alike:
        names = [task.name for task, _ in members]
        shown = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        number = (f"{classes}" if classes else "-") + (UNKNOWN if dataset in assumed and classes else "")
        rows.append((shown, kind, dataset, head or "default", number, f"{params:,}"))
    return table(rows, left=(0, 1, 2, 3))


def _network_lines(config: Config, manifests: Mapping, spec: ModelSpec, costs: Mapping[str, Costs]) -> list[str]:
    tasks, locations = len(spec.tasks), spec.backbone.locations
    shared, split = BranchTree.shared(tasks, locations), BranchTree.split(tasks, locations)
    height, width = spec.backbone.size
    rows = [("network", "parameters", f"M multiply-adds at {height} x {width}")]
    for name, tree in (("fully shared", shared), ("fully split", split)):
        rows.append(_sized(name, *(tree.budget(*costs[unit]) for unit in ("params", "flops"))))
    for request in requests(config.trees, costs):
        rows.append(_sized(f"budget {request.text}", *(request.limits.get(unit) for unit in ("params", "flops"))))
    lines = table([*rows, *_strategy_rows(config, manifests)], left=(0,))
    blocks = "  ".join(f"{block:,}" for block in costs["params"][0])
    first = ", the first shared" if config.trees.share_first else ""
    search = search_method(config, FEW_TREES, MOST_TASKS)
    return [
        f"backbone {spec.backbone.name}, parameters of its {locations} blocks: {blocks}",
        f"trees of {tasks} tasks at {locations} locations{first}: {count_text(trees_in_all(config))}; search: {search}",
        "",
        *lines,
    ]


def _strategy_rows(config: Config, manifests: Mapping) -> Iterator[tuple[str, ...]]:
    """The networks of TAPS and with experts, where the study has them."""
    if config.taps.lams:
        job = taps_jobs(config, manifests, base_of(config, manifests), untrained(config))[0].job
        with torch.device("meta"):
            network = TapsModel(offline(job.model))
        yield _sized(
            f"TAPS base, {len(network.layers)} gated layers", sum(p.numel() for p in network.base.parameters())
        )
    if config.moe.lams:
        joint = offline(moe_spec(config, manifests, joint_tasks(config)))
        with torch.device("meta"):
            network = MoeModel(joint)
        experts = f"{config.moe.experts} experts in {len(network.layers)} layers, top {config.moe.top_k}"
        yield _sized(f"{experts}, without heads", network.backbone_params())
        yield _sized("  with the heads of its tasks", sum(p.numel() for p in network.parameters()))


def _sized(name: str, params: float | None, flops: float | None = None) -> tuple[str, str, str]:
    return name, "" if params is None else f"{params:,.0f}", "" if flops is None else f"{flops / 2e6:,.0f}"


def _job_lines(
    jobs: Sequence[Planned], manifests: Mapping, costs: Mapping[str, ImageCosts], speed: Speed | None
) -> list[str]:
    rows = [("stage", "jobs", "of", "epochs", "steps each", "work", "time" if speed else "")]
    total, open_jobs = 0.0, 0
    for stage, labels in stages_of(jobs).items():
        for label, items in labels.items():
            works = [job_flops(item, manifests, costs) for item in items]
            known = [work for work in works if work is not None]
            open_jobs += len(works) - len(known)
            total += sum(known)
            more = "" if len(known) == len(works) else " + ?"
            work = flops_text(sum(known)) + more if known else UNKNOWN
            epochs = span_text([item.job.train.epochs for item in items])
            took = time_text(sum(known) / speed.flops) + more if speed and known else UNKNOWN if speed else ""
            rows.append((stage, str(len(items)), label, epochs, _steps(items, manifests), work, took))
    lines = table(rows, left=(0, 2))
    if open_jobs == len(jobs):
        return [*lines, f"how long the {len(jobs)} jobs take can't be said before their data are here"]
    rest = f"; {open_jobs} of {len(jobs)} jobs are on data sets that aren't known" if open_jobs else ""
    here = f", on this machine about {time_text(total / speed.flops)} by FLOPs" if speed else ""
    lines.append(f"all, one after another: {flops_text(total)}{here}{rest}")
    if speed:
        lines.append(f"  {flops_text(speed.flops)}/s in training steps of the fully shared network ({speed.where});")
        lines.append("  reading and decoding images, which the loader does meanwhile, are not counted")
    return lines


def _disk_lines(
    config: Config, data: Sequence[DataPlan], jobs: Sequence[Planned], costs: Mapping[str, Costs], checkpoints: int
) -> list[str]:
    found = [(item.images, item.row_bytes) for item in data if item.row_bytes is not None and item.images]
    stored = bytes_text(sum(images * row_bytes for images, row_bytes in found)) if found else UNKNOWN
    missing = "" if len(found) == len(data) else f", without {len(data) - len(found)} that aren't known"
    return [
        f"disk: prepared shards {stored} ({config.prepare.store}, by a sample of each data set{missing})",
        f"  checkpoints and bundles up to {bytes_text(kept_bytes(jobs, costs, checkpoints))}",
    ]


def _steps(items: Sequence[Planned], manifests: Mapping) -> str:
    steps = [steps_of(item.job, manifests) for item in items]
    known = [step * item.job.train.epochs for step, item in zip(steps, items, strict=True) if step is not None]
    return span_text(known) if known else UNKNOWN
