"""Jobs through Ray, in its real forms: in this process, and groups of workers on a cluster of this machine."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pipeline import runner
from pipeline.artifacts import read_manifests
from pipeline.fitting import JobResult, advance, fit
from pipeline.jobs import TrainJob
from pipeline.machine import Machine
from pipeline.storage import JobFolder
from tests.pipeline.cases import DECODING, QUIET, make_job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(DECODING),
    # Ray's own: sockets and files of the cluster, its plans for later versions, what its imports raise
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:ray"),
]


def three(prepared: Path) -> list[TrainJob]:
    """Two sound jobs with one between them that diverges."""
    manifests = read_manifests(prepared)
    quiet: dict[str, Any] = QUIET | {"epochs": 2}
    return [
        make_job(manifests, ("scene",), **quiet),
        make_job(manifests, ("depth",), **{**quiet, "lr": 1e30}),
        make_job(manifests, ("depth", "scene"), **quiet),
    ]


def machine(storage: Path, **changes: Any) -> Machine:
    return Machine(**{"storage": str(storage), "gpu": False, "channels_last": False, "max_failures": 0, **changes})


def run(prepared: Path, machine: Machine, jobs: list[TrainJob]) -> tuple[list[JobResult], list[tuple[str, int]]]:
    logged: list[tuple[str, int]] = []

    def log(job: TrainJob, record: Mapping[str, Any]) -> None:
        logged.append((job.key, record["epoch"]))

    return fit(jobs, machine, prepared, log), logged


def test_several_at_once_the_longest_begins_first(prepared: Path) -> None:
    manifests = read_manifests(prepared)
    shared, split = make_job(manifests), make_job(manifests, groups=[[0, 1]] * 4)
    longer = make_job(manifests, epochs=5)
    for jobs in permutations([shared, split, longer]):
        assert runner.longest_first(jobs) == [longer, split, shared]


def test_here_one_after_another(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = three(prepared)
    twice = [*jobs, replace(jobs[0], name="the same")]
    found, logged = run(prepared, machine(tmp_path), twice)
    assert [result.job.name for result in found] == [job.name for job in twice]
    assert sorted(logged) == sorted((job.key, epoch) for job in (jobs[0], jobs[2]) for epoch in (1, 2))
    bad = found.pop(1)
    assert bad.result is None
    assert "the loss of depth is not finite" in (bad.error or "")
    for result in found:
        assert result.error is None
        assert not result.cached
        assert result.result is not None
        assert result.result["key"] == result.job.key
    monkeypatch.setattr(runner, "_fit_one", None)
    again, logged = run(prepared, machine(tmp_path), [jobs[0], jobs[2]])
    assert all(result.cached for result in again)
    assert [dict(result.result or {}) for result in again] == [dict(result.result or {}) for result in found[:2]]
    assert not logged, "what is done is not reported again"


def test_a_job_that_was_advanced_ends_as_one_that_ran_through(prepared: Path, tmp_path: Path) -> None:
    """What diverged is left out; what is already there is not trained again; the end is the same to the bit."""
    jobs = three(prepared)
    here, there = machine(tmp_path / "halves"), machine(tmp_path / "whole")
    scores = advance(jobs, here, prepared, lambda *_: None, 1)
    assert scores.keys() == {jobs[0].key, jobs[2].key}
    assert advance(jobs[:1], here, prepared, lambda *_: None, 1) == {jobs[0].key: scores[jobs[0].key]}
    assert [len(JobFolder(here.storage, job.key).read_history()) for job in jobs] == [1, 0, 1]
    halves, _ = run(prepared, here, [jobs[0], jobs[2]])
    whole, _ = run(prepared, there, [jobs[0], jobs[2]])
    for one, other in zip(halves, whole, strict=True):
        assert dict(one.result or {}) | {"seconds": 0} == dict(other.result or {}) | {"seconds": 0}
        first = JobFolder(there.storage, one.job.key).read_history()[0]["score"]
        assert scores[one.job.key] == first


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """`fit` starts a cluster where it needs one; here it is stopped."""
    yield
    import ray  # by then with what `pipeline.runner` sets before it is imported

    ray.shutdown()


@pytest.mark.alone
@pytest.mark.usefixtures("_cluster")
def test_two_workers_give_the_result_of_none(prepared: Path, tmp_path: Path) -> None:
    jobs = three(prepared)[1:]
    (bad, good), logged = run(prepared, machine(tmp_path / "group", workers=2), jobs)
    ((alone,), expected) = run(prepared, machine(tmp_path / "here"), jobs[1:])
    assert bad.result is None
    assert "is not finite" in (bad.error or "")
    assert good.error is None
    assert good.result is not None
    assert alone.result is not None
    assert good.result["test"] == pytest.approx(alone.result["test"], rel=1e-3)
    assert good.result["val"] == pytest.approx(alone.result["val"], rel=1e-3)
    assert sorted(logged) == sorted(expected)


@pytest.mark.alone
@pytest.mark.usefixtures("_cluster")
def test_several_at_once_through_tune(prepared: Path, tmp_path: Path) -> None:
    jobs = three(prepared)
    found, _ = run(prepared, machine(tmp_path / "tune", jobs=2), jobs)
    here, _ = run(prepared, machine(tmp_path / "here"), [jobs[0], jobs[2]])
    assert [found[0].error, found[2].error] == [None, None]
    assert "is not finite" in (found[1].error or "")
    for result, expected in zip((found[0], found[2]), here, strict=True):
        assert result.result is not None
        assert expected.result is not None
        assert result.result["test"] == pytest.approx(expected.result["test"], rel=1e-4)
