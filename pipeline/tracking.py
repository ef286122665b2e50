"""Runs in MLflow: what the driver process logs is on disk at once and in the tracking store as soon as that answers.

Training never waits for the store. What it could not be sent is sent by the next process that opens a run, or by
`python -m pipeline.tracking`. The only file that imports mlflow, and not before there is a run to send.
"""

import importlib
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pipeline.sending import Outcome, Sender, Store
from pipeline.spool import Run, Where, shown

T = TypeVar("T")
BATCH = 100  # MLflow's limit for params and tags
TOKEN = "coppice.run"
RETRY_S = 60.0
ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "final/delta_mtl",
    "mlflow.note.content": "One run per trained network, under one run per stage. `final/delta_mtl`: mean relative "
    "change in percent against the single-task networks, higher is better. Group the runs by a tag: `stage`, `method`.",
}


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
        self, id: str, *, name: str, tags: Mapping[str, str], params: Mapping[str, Any], parent: Run | None = None
    ) -> Run:
        """Open a run, under `parent` if given; the same id opens the same run again."""
        run = Run(id, self._where, self._wake.set)
        run.open(name, tags, params, parent)
        self._runs.append(run)
        if self._thread is None:
            if self._connect is None:
                _load()
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()
        return run

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
            outcome = self._sender.send()
            if outcome.error is not None:
                self._tell(_trouble(outcome))
                # A store that was away a moment ago is not asked again at the end: that would only hold up the exit.
                last = last or (self._closing.wait(RETRY_S) and outcome.away)
                self._wake.set()

    def _tell(self, reason: str) -> None:
        if not self._told:
            self._told = True
            text = f"{shown(self._where.uri)} {reason}; runs go on, metrics are kept in {self._where.spool}"
            print(f"tracking: {text}; send them later with: python -m pipeline.tracking", file=sys.stderr, flush=True)


class MlflowStore:
    """A tracking store behind MLflow's client; MLflow's own messages are switched off, but can be asked for again."""

    def __init__(self, uri: str) -> None:
        _load()
        from mlflow.tracking import MlflowClient

        self._uri = uri
        self._client = MlflowClient(tracking_uri=uri)
        self._experiments: dict[str, str] = {}

    def ping(self) -> None:
        self._client.search_experiments(max_results=1)

    def exists(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def find(self, experiment: str, token: str) -> str | None:
        runs = self._client.search_runs([self._experiment(experiment)], f"tags.`{TOKEN}` = '{token}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def create(self, experiment: str, token: str, name: str, time: int, parent: str | None) -> str:
        tags = {TOKEN: token} | ({"mlflow.parentRunId": parent} if parent else {})
        return self._client.create_run(self._experiment(experiment), time, tags, name).info.run_id

    def describe(self, run: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        for batch in _batches(params.items()):
            self._client.log_batch(run, params=[Param(key, value) for key, value in batch])
        for batch in _batches(tags.items()):
            self._client.log_batch(run, tags=[RunTag(key, value) for key, value in batch])

    def log(self, run: str, metrics: Mapping[str, float], step: int, time: int) -> None:
        from mlflow.entities import Metric

        for batch in _batches(metrics.items()):
            self._client.log_batch(run, metrics=[Metric(key, value, time, step) for key, value in batch])

    def status(self, run: str, status: str, time: int) -> None:
        if status == "RUNNING":
            self._client.update_run(run, status)
        else:
            self._client.set_terminated(run, status, time)

    def artifact(self, run: str, path: Path, folder: str) -> None:
        self._client.log_artifact(run, str(path), folder or None)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = self._find_experiment(name) or self._create_experiment(name)
        return self._experiments[name]

    def _find_experiment(self, name: str) -> str | None:
        experiment = self._client.get_experiment_by_name(name)
        return experiment.experiment_id if experiment else None

    def _create_experiment(self, name: str) -> str:
        location = None
        if self._uri.startswith("sqlite:///"):
            # MLflow's own default is relative to wherever the process happens to run.
            database = Path(self._uri.removeprefix("sqlite:///").partition("?")[0]).resolve()
            location = (database.parent / "mlartifacts").as_uri()
        try:
            return self._client.create_experiment(name, location, EXPERIMENT_TAGS)
        except Exception:
            # Another process may have been first.
            if found := self._find_experiment(name):
                return found
            raise


def sync(where: Where, *, connect: Callable[[str], Store] | None = None) -> tuple[int, int]:
    """Send all that earlier processes left in the spool; returns (events sent, events left)."""
    sender = _sender(where, connect)
    return sender.send().sent.total(), sender.left().total()


def spool_folder(storage: str) -> Path:
    """Map machine.yaml's storage to the spool's folder: beside the runs, or in `runs` here if they lie elsewhere."""
    return Path("runs" if "://" in storage else storage).resolve() / "tracking"


def main() -> int:
    """Send what could not be sent before; 1 if anything is left."""
    from pipeline.config import load_machine

    machine = load_machine()
    assert machine.tracking_uri is not None
    sender = _sender(Where(uri=machine.tracking_uri, spool=spool_folder(machine.storage), experiment=""), None)
    outcome = sender.send()
    print(f"tracking: sent {_count(outcome.sent)} to {shown(machine.tracking_uri)}")
    if left := sender.left():
        reason = f": {_trouble(outcome)}" if outcome.error else ""
        print(f"tracking: {_count(left)} left{reason}", file=sys.stderr)
    return 1 if left else 0


def _sender(where: Where, connect: Callable[[str], Store] | None) -> Sender:
    return Sender(where.spool.resolve(), shown(where.uri), lambda: (connect or MlflowStore)(where.uri))


def _load() -> None:
    """Import mlflow, in a stage before its work: C libraries loaded while another thread computes may crash both."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    importlib.import_module("mlflow.tracking")


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _trouble(outcome: Outcome) -> str:
    """What stands between the store and the events, by the innermost cause: MLflow wraps it in several layers."""
    cause: BaseException | None = outcome.error
    assert cause is not None
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    text = shown(f"{type(cause).__name__}: {cause}").splitlines()[0][:200]
    return f"not reachable ({text})" if outcome.away else f"did not take everything ({text})"


def _count(events: Counter[str]) -> str:
    return f"{events.total()} events of {len(events)} runs"


if __name__ == "__main__":
    raise SystemExit(main())
