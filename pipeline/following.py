"""What jobs that run elsewhere have done: their histories in storage, read as they grow."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow.fs as pafs

from pipeline.jobs import TrainJob
from pipeline.storage import JobFolder

POLL_SECONDS = 1.0

Log = Callable[[TrainJob, Mapping[str, Any]], None]


@contextmanager
def following(jobs: Sequence[TrainJob], storage: str, log: Log) -> Iterator[None]:
    """Hand each new line of the jobs' histories to `log`, from now until the block has ended and all were seen."""
    ended = threading.Event()
    seen: dict[str, int] = {}
    stamps: dict[str, Any] = {}

    def changed() -> list[TrainJob]:
        # One question for all jobs, and only what has changed is read: a thousand histories a second are megabytes.
        try:
            found = stamps_of(storage, [job.key for job in jobs])
        except OSError:  # a storage that is away is asked again
            return []
        new = [job for job in jobs if found[job.key] != stamps.get(job.key)]
        stamps.update(found)
        return new

    def show(job: TrainJob) -> None:
        records = JobFolder(storage, job.key).read_history()
        for record in records[seen.get(job.key, 0) :]:
            log(job, record)
        seen[job.key] = max(len(records), seen.get(job.key, 0))

    def follow() -> None:
        while not ended.wait(POLL_SECONDS):
            for job in changed():
                show(job)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for job in jobs:
            show(job)


def stamps_of(storage: str, keys: Sequence[str]) -> dict[str, tuple[int | None, int | None]]:
    """Map jobs to the size and time of change of their histories, both None where there is none yet."""
    system, path = pafs.FileSystem.from_uri(storage)
    infos = system.get_file_info([f"{path.rstrip('/')}/jobs/{key}/history.jsonl" for key in keys])
    return {key: (info.size, info.mtime_ns) for key, info in zip(keys, infos, strict=True)}
