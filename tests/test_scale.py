"""The simulated cluster against closed forms, and its job lists against what the presets say of themselves."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import ceil, exp, inf, sqrt

import numpy as np
import pytest

from benchmarks.cluster import Cluster, Job, Trace, seconds_of, simulate
from benchmarks.loads import SIZES, waves
from benchmarks.scale import FLOPS, Shape, outcome, timed
from pipeline.jobs import usable_ranks
from pipeline.presets import preset_path

FAULTY = Cluster(
    nodes=5, gpus=4, start=3, checkpoint=10, mtbf=400, notice=7, repair=60, slow_nodes=0.3, slow_factor=1.5
)
study_of = cache(waves)
SOUND = replace(FAULTY, mtbf=inf, slow_nodes=0.0)
CASES = [(cluster, seed) for cluster in (FAULTY, SOUND) for seed in range(6)]


def some_jobs(seed: int, count: int = 40) -> list[Job]:
    chance = np.random.default_rng(seed)
    sizes = chance.choice([1, 2, 4, 7], count)
    return [Job(seconds=float(chance.exponential(50)) + 1, workers=int(workers)) for workers in sizes]


@pytest.mark.parametrize(("count", "workers"), [(1, 1), (7, 1), (16, 4), (9, 4), (5, 16), (3, 8)])
def test_equal_jobs_run_in_full_rounds(count: int, workers: int) -> None:
    cluster = Cluster(nodes=4, gpus=4, start=5)
    trace = simulate([Job(seconds=100, workers=workers)] * count, cluster)
    assert trace.makespan == pytest.approx(ceil(count / (16 // workers)) * 105)
    assert len(trace.attempts) == count


@pytest.mark.parametrize("seed", range(6))
def test_a_list_of_single_workers_keeps_to_grahams_bounds(seed: int) -> None:
    jobs = [replace(job, workers=1) for job in some_jobs(seed)]
    cluster = Cluster(nodes=2, gpus=3)
    total, longest = sum(job.seconds for job in jobs), max(job.seconds for job in jobs)
    assert max(total / 6, longest) - 1e-9 <= simulate(jobs, cluster).makespan <= total / 6 + longest * (1 - 1 / 6)


@pytest.mark.parametrize(("cluster", "seed"), CASES)
def test_a_gang_has_all_its_workers_and_no_gpu_has_two_jobs(cluster: Cluster, seed: int) -> None:
    jobs = some_jobs(seed)
    trace = simulate(jobs, cluster, seed)
    spans = defaultdict(list)
    for attempt in trace.attempts:
        assert len(set(attempt.slots)) == len(attempt.slots) == jobs[attempt.job].workers
        for slot in attempt.slots:
            assert slot in {(node, gpu) for node in range(cluster.nodes) for gpu in range(cluster.gpus)}
            spans[slot].append((attempt.began, attempt.ended))
    for node, since, until in trace.downs:
        for gpu in range(cluster.gpus):
            spans[node, gpu].append((since, until))
    for used in spans.values():
        used.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(used))


@pytest.mark.parametrize(("cluster", "seed"), CASES)
def test_every_job_is_done_whole_and_one_attempt_at_a_time(cluster: Cluster, seed: int) -> None:
    jobs = some_jobs(seed)
    trace = simulate(jobs, cluster, seed)
    for place, job in enumerate(jobs):
        mine = [attempt for attempt in trace.attempts if attempt.job == place]
        assert sum(attempt.kept for attempt in mine) == pytest.approx(job.seconds)
        pauses = [after.began - before.ended for before, after in pairwise(mine)]
        assert all(pause >= cluster.notice - 1e-9 for pause in pauses)
        assert all(0 <= attempt.worked - attempt.kept < cluster.checkpoint for attempt in mine)
        assert all(attempt.kept == attempt.worked for attempt in mine[-1:])
    assert trace.makespan == max(attempt.ended for attempt in trace.attempts)


@pytest.mark.parametrize(("cluster", "seed"), CASES)
def test_no_job_waits_for_gpus_that_are_free(cluster: Cluster, seed: int) -> None:
    jobs = some_jobs(seed)
    trace = simulate(jobs, cluster, seed)
    times = sorted({time for a in trace.attempts for time in (a.began, a.ended)} | {down[2] for down in trace.downs})
    for early, late in pairwise(times):
        middle = (early + late) / 2
        free = free_at(trace, cluster, middle)
        assert not [job for job in waiting_at(trace, cluster, jobs, middle) if jobs[job].workers <= free]


def free_at(trace: Trace, cluster: Cluster, time: float) -> int:
    used = sum(len(attempt.slots) for attempt in trace.attempts if attempt.began <= time < attempt.ended)
    return cluster.slots - used - cluster.gpus * sum(since <= time < until for _, since, until in trace.downs)


def waiting_at(trace: Trace, cluster: Cluster, jobs: Sequence[Job], time: float) -> list[int]:
    """Jobs that run later, do not run now, and have noticed the death of their last attempt."""
    found = []
    for place in range(len(jobs)):
        mine = [attempt for attempt in trace.attempts if attempt.job == place]
        ended = max((attempt.ended for attempt in mine if attempt.ended <= time), default=-inf)
        runs = any(attempt.began <= time < attempt.ended for attempt in mine)
        if not runs and any(attempt.began > time for attempt in mine) and ended + cluster.notice <= time:
            found.append(place)
    return found


@pytest.mark.parametrize(("cluster", "seed"), CASES)
def test_all_gpu_seconds_are_accounted_for(cluster: Cluster, seed: int) -> None:
    jobs = some_jobs(seed)
    trace = simulate(jobs, cluster, seed)
    spent = seconds_of(trace, jobs, cluster)
    assert sum(spent.values()) == pytest.approx(trace.makespan * cluster.slots)
    assert spent["useful"] == pytest.approx(sum(job.seconds * job.workers for job in jobs))
    assert min(spent.values()) >= 0
    assert simulate(jobs, cluster, seed) == trace


@pytest.mark.parametrize(("cluster", "seed"), CASES)
def test_jobs_of_one_size_start_in_their_order_and_go_on_in_it(cluster: Cluster, seed: int) -> None:
    jobs = [replace(job, workers=4) for job in some_jobs(seed)]
    trace = simulate(jobs, cluster, seed)
    for attempt in trace.attempts:
        still = waiting_at(trace, cluster, jobs, attempt.began + 1e-6)
        assert all(job > attempt.job for job in still)


def test_lost_work_is_that_of_poisson_deaths() -> None:
    """Of a lifetime X ~ Exp(1 / m), X mod c is lost: m - c / (exp(c / m) - 1) on average."""
    cluster = Cluster(nodes=1, gpus=1, checkpoint=30, mtbf=50)
    trace = simulate([Job(seconds=200_000)], cluster, seed=1)
    lost = np.array([attempt.worked - attempt.kept for attempt in trace.attempts[:-1]])
    assert len(lost) > 3000
    assert abs(lost.mean() - (50 - 30 / (exp(30 / 50) - 1))) < 3 * lost.std() / sqrt(len(lost))


def test_a_job_without_checkpoints_takes_as_long_as_the_formula_says() -> None:
    """E[time] = (m + r) (exp(s / m) - 1), where a death sets a job of s seconds back to its beginning and takes r."""
    cluster = Cluster(nodes=1, gpus=1, mtbf=100, repair=20)
    times = np.array([simulate([Job(seconds=150)], cluster, seed).makespan for seed in range(2000)])
    assert abs(times.mean() - 120 * (exp(1.5) - 1)) < 3 * times.std() / sqrt(len(times))


def test_a_slow_node_holds_up_its_whole_gang_and_no_other() -> None:
    cluster = Cluster(nodes=4, gpus=2, slow_nodes=0.5, slow_factor=2)
    for seed in range(20):
        long = {a.slots: a.ended for a in simulate([Job(seconds=10, workers=2)] * 4, cluster, seed).attempts}
        whole = simulate([Job(seconds=10, workers=8)], cluster, seed).makespan
        assert set(long.values()) <= {10, 20}
        assert whole == max(long.values())


def test_a_gang_that_never_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="job 1 asks for 9 workers; the cluster has 8 GPUs"):
        simulate([Job(seconds=1), Job(seconds=1, workers=9)], Cluster(nodes=2, gpus=4))


@pytest.mark.parametrize("name", ["cityscapes", "taskonomy", "celeba", "domainnet"])
def test_the_job_lists_have_the_work_that_the_presets_state(name: str) -> None:
    stated = re.search(r"([\d.]+) EFLOP", preset_path(name).read_text())
    assert stated
    total = sum(load.flops for wave in study_of(name) for load in wave.loads)
    assert round(total / 1e18, 1) == float(stated[1])


@pytest.mark.parametrize("most", [1, 5, 8, 96])
def test_a_gang_is_one_that_the_loader_takes(most: int) -> None:
    for wave in study_of("domainnet"):
        for load in wave.loads:
            for draws in (1, 96):
                workers = usable_ranks(replace(load.job, draws=draws), most)
                assert 1 <= workers <= most
                assert draws % workers == 0 if draws > 1 else workers <= min(load.job.batches)


def test_useful_seconds_are_the_flops_whatever_the_cluster() -> None:
    study = study_of("domainnet")
    total = sum(load.flops for wave in study for load in wave.loads)
    for shape in (Shape(gpus=1, workers=1), Shape(gpus=8, workers=8), Shape(gpus=96, workers=8, nodes="spot")):
        found = outcome(study, shape, FLOPS, seed=0)
        assert found.parts["useful"] == pytest.approx(total / FLOPS)
        assert sum(found.parts.values()) == pytest.approx(found.seconds * shape.cluster.slots)
    assert timed(study[0].loads[0], 1, FLOPS)[1] == 0
    assert set(SIZES) == {"cityscapes", "taskonomy", "celeba", "imagenet_to_sketch", "decathlon", "domainnet", "mthl"}
