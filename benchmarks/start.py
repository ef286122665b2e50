"""The seconds until `make` and each stage are at work.    python -m benchmarks.start    (eight minutes)

Fresh processes in a fresh copy, with the data of presets/smoke.yaml, in turn with one that imports torch and no more:
its time is taken off that of a stage, and off that of the libraries that every training stage uses. All of a stage's
imports are measured; and on `pretrain` how long it takes until it begins to train, with settings read, its run open in
tracking and Ray Train imported, and how long it takes in all where its networks stand in storage.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from benchmarks.chain import checkout
from benchmarks.lines import Goal, Line, duration, figure, note, show
from benchmarks.timing import Times, in_turn
from pipeline.config import ROOT
from pipeline.presets import adopt_preset

ROUNDS = 3
STAGES = tuple(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"])
STUDIES = {"moe": "moe_study", "adapt": "adapt_study"}  # what such a stage imports where it has something to do
HELP, TORCH, LIBRARIES, TRAINING, AGAIN = "help", "torch", "libraries", "training", "again"
USED = "torchvision, timm, ray.train, ray.train.torch"  # by every stage that trains
BEYOND = "`import torch`"
TO_TRAINING = """
import os, runpy, sys
import stages
from pipeline import runner
runner.run_job = lambda *_: os._exit(0)
sys.argv = ["pretrain"]
runpy.run_module("stages.pretrain", run_name="__main__")
sys.exit("nothing was trained")
"""

Command = tuple[Sequence[str], Path]  # and the folder in which it runs


def lines() -> Iterator[Line]:
    with TemporaryDirectory() as folder:
        commands = _commands(*_copies(Path(folder)))
        cpu: dict[str, list[float]] = {name: [] for name in commands}
        wall = in_turn({name: partial(_timed, *command, cpu[name]) for name, command in commands.items()}, ROUNDS)
    times = {name: Times(wall=wall[name].wall, cpu=tuple(cpu[name][1:])) for name in commands}
    yield _line("`make`: the targets", "–", times[HELP], None, Goal(most=1))
    yield _line("`import torch`", "–", times[TORCH], None)
    stages = [_line(f"stages.{stage}, its imports", BEYOND, times[stage], times[TORCH]) for stage in STAGES]
    yield from stages
    slowest = max(stages, key=lambda line: line.value)
    yield replace(slowest, what=f"the slowest of them, {slowest.what.partition(',')[0]}", goal=Goal(most=6))
    training = "stages.pretrain until it trains: settings, tracking, Ray Train"
    yield _line(f"`import {USED}`, nothing of ours", BEYOND, times[LIBRARIES], times[TORCH])
    yield _line(training, BEYOND, times[TRAINING], times[TORCH], Goal(most=6))
    yield _line("stages.pretrain to its end, all networks trained before", BEYOND, times[AGAIN], times[TORCH])


def _copies(folder: Path) -> tuple[Path, Path]:
    """A checkout with the smallest preset's data, and the same with its single-task networks."""
    fresh, trained = checkout(folder), folder / "trained"
    adopt_preset("smoke", None, fresh)
    for stage in ("sources", "prepare"):
        _run([sys.executable, "-m", f"stages.{stage}"], fresh)
    shutil.copytree(fresh, trained, symlinks=True)
    note("a copy's single-task networks are trained")
    _run([sys.executable, "-m", "stages.pretrain"], trained)
    return fresh, trained


def _commands(fresh: Path, trained: Path) -> dict[str, Command]:
    def python(*arguments: str) -> Sequence[str]:
        return [sys.executable, *arguments]

    return {
        HELP: (["make"], fresh),
        TORCH: (python("-c", "import torch"), fresh),
        LIBRARIES: (python("-c", f"import {USED}"), fresh),
        **{stage: (python("-c", f"import stages.{STUDIES.get(stage, stage)}"), fresh) for stage in STAGES},
        TRAINING: (python("-c", TO_TRAINING), fresh),
        AGAIN: (python("-m", "stages.pretrain"), trained),
    }


def _timed(command: Sequence[str], folder: Path, cpu: list[float]) -> None:
    """Run a command, and keep the CPU time of its processes: in_turn sees this process's alone."""
    before = os.times()
    _run(command, folder)
    after = os.times()
    cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} left with {done.returncode}:\n{done.stdout}{done.stderr}")


def _line(what: str, beside: str, times: Times, base: Times | None, goal: Goal | None = None) -> Line:
    """The seconds on the wall of a process, beyond those of another in the same round."""
    taken_off = base.wall if base else (0.0,) * len(times.wall)
    beyond = [one - other for one, other in zip(times.wall, taken_off, strict=True)]
    took = f"{duration(median(times.wall))}, {duration(median(times.cpu))} on the CPU"
    return replace(figure(12, what, beside, beyond, "s", goal), clock="wall", took=took)


if __name__ == "__main__":
    show(lines())
