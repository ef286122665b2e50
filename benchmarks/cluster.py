"""Jobs, a cluster and a seed -> when each ran where: a simulation of how the networks of a stage share its GPUs.

The policy is that of the house: first come, first served, as many at once as fit. A job is a gang: all its workers
start together or none does, and where one is lost all start anew from the last checkpoint. Nothing is run or printed.
"""

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf

import numpy as np

Slot = tuple[int, int]  # a node and one of its GPUs


@dataclass(frozen=True, kw_only=True)
class Job:
    """A network to train: the seconds that its workers take for it together, on nodes that are not slow."""

    seconds: float
    workers: int = 1


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes of some GPUs each, and what goes wrong on them. Times are in seconds.

    start       before a gang does its first step
    checkpoint  of work from one checkpoint to the next; what was done since is lost with a node
    mtbf        mean time from a node's start to its death; deaths are a Poisson process of each node
    notice      until a gang whose node died may start again
    repair      until a dead node is back
    slow_nodes, slow_factor  the share of nodes on which work takes so many times as long
    """

    nodes: int
    gpus: int
    start: float = 0.0
    checkpoint: float = inf
    mtbf: float = inf
    notice: float = 0.0
    repair: float = 0.0
    slow_nodes: float = 0.0
    slow_factor: float = 1.0

    @property
    def slots(self) -> int:
        return self.nodes * self.gpus


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a job: where, from when to when, the seconds of work that it did and those that were kept."""

    job: int
    slots: tuple[Slot, ...]
    began: float
    ended: float
    worked: float
    kept: float


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What happened. `downs` are (node, from, until); `unused` sums the seconds of free GPUs by what they lacked.

    waiting: a job that waits needs more of them, or has not noticed a death yet; tail: no job is left to start;
    down: the node was dead.
    """

    makespan: float
    attempts: tuple[Attempt, ...]
    downs: tuple[tuple[int, float, float], ...]
    unused: Mapping[str, float]


def simulate(jobs: Sequence[Job], cluster: Cluster, seed: int = 0) -> Trace:
    """Map jobs in their order to a trace; the same seed gives the same deaths. ValueError where a gang never fits."""
    for place, job in enumerate(jobs):
        if not 0 < job.workers <= cluster.slots:
            raise ValueError(f"job {place} asks for {job.workers} workers; the cluster has {cluster.slots} GPUs")
    return _Simulation(jobs, cluster, seed).run()


def seconds_of(trace: Trace, jobs: Sequence[Job], cluster: Cluster) -> dict[str, float]:
    """Map a trace to GPU seconds by what became of them; they add up to all GPUs over the whole makespan."""
    used: dict[str, float] = dict.fromkeys(("useful", "start", "slow", "lost"), 0.0)
    for attempt in trace.attempts:
        workers, busy = jobs[attempt.job].workers, attempt.ended - attempt.began
        at_work = max(0.0, busy - cluster.start)
        used["useful"] += workers * attempt.kept
        used["lost"] += workers * (attempt.worked - attempt.kept)
        used["slow"] += workers * max(0.0, at_work - attempt.worked)
        used["start"] += workers * (busy - at_work)
    return used | dict(trace.unused)


class _Simulation:
    """The state of a cluster between two events."""

    def __init__(self, jobs: Sequence[Job], cluster: Cluster, seed: int) -> None:
        self.jobs, self.cluster, self.now = jobs, cluster, 0.0
        self.chance = [np.random.default_rng([seed, node]) for node in range(cluster.nodes)]
        slow = [chance.random() < cluster.slow_nodes for chance in self.chance]
        self.speed = [1 / cluster.slow_factor if is_slow else 1.0 for is_slow in slow]
        self.free = {node: list(range(cluster.gpus)) for node in range(cluster.nodes)}
        self.dead: dict[int, float] = {}
        self.waiting = list(range(len(jobs)))
        self.noticing = 0
        self.left = {place: job.seconds for place, job in enumerate(jobs)}
        self.running: dict[int, tuple[float, tuple[Slot, ...]]] = {}
        self.attempts: list[Attempt] = []
        self.downs: list[tuple[int, float, float]] = []
        self.unused: dict[str, float] = dict.fromkeys(("waiting", "tail", "down"), 0.0)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = count()

    def run(self) -> Trace:
        for node in range(self.cluster.nodes):
            self._doom(node)
        self._start_what_fits()
        while self.left:
            time, _, event = heappop(self.events)
            self._pass_to(time)
            event()
            self._start_what_fits()
        self.downs += [(node, since, self.now) for node, since in self.dead.items()]
        return Trace(makespan=self.now, attempts=tuple(self.attempts), downs=tuple(self.downs), unused=self.unused)

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heappush(self.events, (time, next(self.numbers), event))

    def _pass_to(self, time: float) -> None:
        span, self.now = time - self.now, time
        self.unused["down"] += span * len(self.dead) * self.cluster.gpus
        why = "waiting" if self.waiting or self.noticing else "tail"
        self.unused[why] += span * sum(map(len, self.free.values()))

    def _start_what_fits(self) -> None:
        for job in list(self.waiting):
            if not any(self.free.values()):
                return
            if slots := self._gang(self.jobs[job].workers):
                self.waiting.remove(job)
                for node, gpu in slots:
                    self.free[node].remove(gpu)
                self.running[job] = self.now, slots
                work = self.left[job] / min(self.speed[node] for node, _ in slots)
                self._at(self.now + self.cluster.start + work, partial(self._finish, job, self.now))

    def _gang(self, workers: int) -> tuple[Slot, ...]:
        """On the fullest node that has room for all, else on as few nodes as possible; empty where they don't fit."""
        roomy = [node for node, gpus in self.free.items() if len(gpus) >= workers]
        if roomy:
            nodes = [min(roomy, key=lambda node: len(self.free[node]))]
        else:
            nodes = sorted(self.free, key=lambda node: -len(self.free[node]))
        found = [(node, gpu) for node in nodes for gpu in self.free[node]][:workers]
        return tuple(found) if len(found) == workers else ()

    def _finish(self, job: int, began: float) -> None:
        if self.running.get(job, (None,))[0] == began:  # else it died meanwhile
            self._end(job, self.left[job], self.left[job])
            del self.left[job]

    def _end(self, job: int, worked: float, kept: float) -> None:
        began, slots = self.running.pop(job)
        for node, gpu in slots:
            if node in self.free:
                self.free[node].append(gpu)
        self.attempts.append(Attempt(job=job, slots=slots, began=began, ended=self.now, worked=worked, kept=kept))

    def _doom(self, node: int) -> None:
        if self.cluster.mtbf < inf:
            self._at(self.now + self.chance[node].exponential(self.cluster.mtbf), partial(self._die, node))

    def _die(self, node: int) -> None:
        del self.free[node]
        self.dead[node] = self.now
        for job in [job for job, (_, slots) in self.running.items() if any(slot[0] == node for slot in slots)]:
            began, slots = self.running[job]
            speed = min(self.speed[other] for other, _ in slots)
            worked = max(0.0, self.now - began - self.cluster.start) * speed
            kept = worked // self.cluster.checkpoint * self.cluster.checkpoint if self.cluster.checkpoint < inf else 0.0
            self._end(job, worked, kept)
            self.left[job] -= kept
            self.noticing += 1
            self._at(self.now + self.cluster.notice, partial(self._notice, job))
        self._at(self.now + self.cluster.repair, partial(self._come_back, node))

    def _notice(self, job: int) -> None:
        self.noticing -= 1
        insort(self.waiting, job)

    def _come_back(self, node: int) -> None:
        self.downs.append((node, self.dead.pop(node), self.now))
        self.free[node] = list(range(self.cluster.gpus))
        self._doom(node)
