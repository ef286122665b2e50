"""The runs of one process: what they log is on disk at once, and in the tracking store as soon as that answers.

Training never waits for the store. What it could not be sent is sent by the next process that opens a run, or by
`python -m pipeline.tracking`.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from pipeline.sending import LANES, WHILE_AT_WORK, Sender, Store, trouble
from pipeline.spool import Where, shown
from pipeline.tracked_run import Run
from pipeline.tracking import MlflowStore, load_mlflow

RETRY_S = 60.0


class Tracker:
    """The runs of one process, sent by a thread in the background. Leaving it by an exception ends its open runs."""

    def __init__(self, where: Where, *, connect: Callable[[str], Store] | None = None) -> None:
        self._where = replace(where, spool=where.spool.resolve())
        self._connect = connect
        self._sender = _sender(self._where, connect)
        self._runs: list[Run] = []
        self._thread: threading.Thread | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._told = False

    def run(
        self,
        id: str,
        *,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: Run | None = None,
        links: Mapping[str, str] | None = None,
    ) -> Run:
        """Open a run, under `parent` if given; the same id opens the same run again.

        `links` are tags that name other runs by their ids here; the store gets its own ids of those.
        """
        run = Run(id, self._where, self._wake.set)
        run.open(name, tags, params, parent.id if parent else None, links or {})
        self._runs.append(run)
        if self._thread is None:
            if self._connect is None:
                load_mlflow()
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()
        return run

    def known(self, id: str) -> Run | None:
        """A run of an earlier stage, to say more of, without being opened again; None where this spool has none."""
        run = Run(id, self._where, self._wake.set)
        return run if run.recall() else None

    def close(self, timeout: float = 60.0) -> None:
        """Send what is left, but wait no longer than `timeout` seconds for it."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                self._tell(f"has not taken everything within {timeout:.0f} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for run in reversed([run for run in self._runs if not run.finished]):
                run.finish({}, "FAILED" if issubclass(kind, Exception) else "KILLED")
        self.close()

    def _work(self) -> None:
        last = False
        while not last:
            self._wake.wait()
            self._wake.clear()
            last = self._closing.is_set()
            outcome = self._sender.send(LANES if last else WHILE_AT_WORK)
            if outcome.error is not None:
                self._tell(trouble(outcome))
                # A store that was away a moment ago is not asked again at the end: that would only hold up the exit.
                last = last or (self._closing.wait(RETRY_S) and outcome.away)
                self._wake.set()

    def _tell(self, reason: str) -> None:
        if not self._told:
            self._told = True
            text = f"{shown(self._where.uri)} {reason}; runs go on, metrics are kept in {self._where.spool}"
            print(f"tracking: {text}; send them later with: python -m pipeline.tracking", file=sys.stderr, flush=True)


def sync(where: Where, *, connect: Callable[[str], Store] | None = None) -> tuple[int, int]:
    """Send all that earlier processes left in the spool; returns (events sent, events left)."""
    sender = _sender(where, connect)
    return sender.send().sent.total(), sender.left().total()


def _sender(where: Where, connect: Callable[[str], Store] | None) -> Sender:
    return Sender(where.spool.resolve(), shown(where.uri), lambda: (connect or MlflowStore)(where.uri))
