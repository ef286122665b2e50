"""Random kills on a cluster of this machine, and what is left of the jobs: nothing may be lost, leak or grow.

python -m tests.soak [--minutes 30] [--seed 0]    (what `make soak` runs; root and Linux)

Rounds of four jobs on three Ray nodes, each job alone in its process or in a group of one or two workers, by turns.
Every few seconds a worker, a node or the driver is killed, or a worker is stopped for a while. A round ends when all
jobs are done; their weights must then be those of jobs that nobody disturbed.
"""

import json
import os
import random
import signal
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pipeline.checkpoints import kept_weights
from pipeline.config import ROOT
from pipeline.fitting import fit
from pipeline.machine import Machine
from pipeline.preparing import open_source
from pipeline.storage import JobFolder
from tests.pipeline.cases import prepare, settings
from tests.pipeline.fault_study import machine, study
from tests.ray_nodes import Nodes, ray_nodes, why_not

JOBS, EPOCHS, NODES = 4, 6, 3
HOW: tuple[dict[str, Any], ...] = ({"jobs": 2}, {"jobs": 2, "workers": [1, 2]})
PAUSES = ((4.0, 25.0), (20.0, 70.0))  # seconds between two faults; a group takes 20 to start again
WORKERS = ("RayTrainWorker", "ImplicitFunc", "TrainController")  # a rank of a group, a trial, what starts a group
LONGEST = 1200.0  # seconds of a round after the last fault
GROWTH = 500  # MiB more that the head may hold than after the first round of that kind
DRIVER = "fault_study"


@dataclass
class Soak:
    """One soak at work: the cluster, its jobs' folders, the dice, and what was done to whom."""

    nodes: Nodes
    prepared: Path
    folder: Path
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)

    def round(self, number: int, until: float) -> None:
        """Train all jobs to their end, with faults until a time."""
        storage = self.folder / f"round{number}"
        driver = self.drive(storage, number)
        while driver.poll() != 0:
            pause = time.monotonic() + self.dice.uniform(*PAUSES[number % len(HOW)])
            while time.monotonic() < pause and driver.poll() is None:
                time.sleep(0.2)
            if driver.poll() is None and time.monotonic() < until:
                self.disturb()
            assert time.monotonic() < until + LONGEST, f"round {number} does not end"
            if driver.poll() not in (None, 0):
                driver = self.drive(storage, number)

    def drive(self, storage: Path, number: int) -> Popen[bytes]:
        about = {"storage": str(storage), "address": self.nodes.cluster, "max_failures": 99, "stuck_seconds": 30}
        sizes = [str(JOBS), str(EPOCHS), json.dumps(about | HOW[number % len(HOW)])]
        command = [sys.executable, "-m", f"tests.pipeline.{DRIVER}", str(self.prepared), *sizes]
        inside, environment = self.nodes.inside(0, command), self.nodes.environment
        with (self.folder / "driver.log").open("ab") as log:
            return Popen(inside, cwd=ROOT, env=environment, stdin=DEVNULL, stdout=log, stderr=log)

    def disturb(self) -> None:
        """Do one thing that clusters do."""
        what = self.dice.choice(["worker", "worker", "node", "driver", "pause"])
        found = self.workers()
        if what == "node":
            node = self.dice.randrange(1, NODES)
            self.nodes.kill(node)
            time.sleep(self.dice.uniform(0, 10))
            self.nodes.start(node)
        elif what == "driver":
            kill(self.nodes.processes(0, DRIVER), signal.SIGKILL)
        elif not found:
            return
        else:
            chosen = [self.dice.choice(found)]
            kill(chosen, signal.SIGKILL if what == "worker" else signal.SIGSTOP)
            if what == "pause":
                time.sleep(self.dice.uniform(1, 10))
                kill(chosen, signal.SIGCONT)
        self.done[what] += 1

    def resident(self) -> int:
        """Megabytes that the head's own processes hold once no driver runs."""
        page = os.sysconf("SC_PAGE_SIZE")
        statm = [Path(f"/proc/{pid}/statm") for pid in self.nodes.processes(0)]
        return sum(int(file.read_text().split()[1]) * page for file in statm if file.exists()) // 2**20

    def idle(self) -> list[int]:
        """The training processes that are left when every driver has ended; they have half a minute to go."""
        patience = time.monotonic() + 30
        while (left := self.workers()) and time.monotonic() < patience:
            time.sleep(0.5)
        return left

    def workers(self) -> list[int]:
        """The processes that train."""
        return [pid for node in range(NODES) for title in WORKERS for pid in self.nodes.processes(node, title)]


def kill(pids: Sequence[int], how: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            continue


def worst(prepared: Path, storage: Path, undisturbed: Path) -> float:
    """The largest difference of a weight from that of the same job without trouble."""
    found = 0.0
    for job in study(prepared, JOBS, EPOCHS):
        mine, its = (kept_weights(JobFolder(str(folder), job.key)) for folder in (storage, undisturbed))
        assert mine is not None, f"{storage}: job {job.key} has no weights"
        assert its is not None
        found = max(found, *(float((value.double() - mine[name].double()).abs().max()) for name, value in its.items()))
    return found


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if reason := why_not():
        sys.exit(f"soak: {reason}")
    torch.set_num_threads(1)
    with TemporaryDirectory(ignore_cleanup_errors=True) as draft:
        folder, config = Path(draft), settings({"images": 400})
        prepare(folder / "prepared", open_source("tiny", config, Machine()), config)
        jobs, whole = study(folder / "prepared", JOBS, EPOCHS), folder / "undisturbed"
        assert not any(
            one.error for one in fit(jobs, machine(storage=str(whole)), folder / "prepared", lambda *_: None)
        )
        print("soak: undisturbed jobs trained", flush=True)
        (folder / "ray").mkdir()
        with ray_nodes(folder / "ray", nodes=NODES, cpus=1) as nodes:
            soak(Soak(nodes, folder / "prepared", folder, random.Random(given.seed)), whole, given.minutes)


def soak(at: Soak, whole: Path, minutes: float) -> None:
    """Rounds until the time is over; one line each, and exit 1 where something was lost, leaked or grew."""
    began, number, held = time.monotonic(), 0, list[int]()
    while time.monotonic() < began + 60 * minutes:
        at.round(number, began + 60 * minutes)
        left, off = at.idle(), worst(at.prepared, at.folder / f"round{number}", whole)
        drafts = list((at.folder / f"round{number}").rglob("*.part"))
        held.append(at.resident())
        faults = ", ".join(f"{count} {name}" for name, count in sorted(at.done.items()))
        minute = (time.monotonic() - began) / 60
        print(
            f"soak: {minute:.1f} min, round {number} {HOW[number % len(HOW)]}: weights off by {off:.1e}, {len(left)}"
            f" processes left, {len(drafts)} drafts, head holds {held[-1]} MiB; so far {faults}",
            flush=True,
        )
        grown = held[-1] - held[number % len(HOW)]
        if left or drafts or grown > GROWTH or off > (0 if number % len(HOW) == 0 else 1e-3):
            sys.exit("soak: lost, leaked or grown, see above")
        number += 1
    print(f"soak: {number} rounds, {at.done.total()} faults, nothing lost; the head held {held} MiB", flush=True)


if __name__ == "__main__":
    main()
