"""Runs, models and views in MLflow, behind its client. The only file that imports mlflow.

`python -m pipeline.tracking` sends what the stages could not.
"""

import importlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pipeline.run_view import TESTED, shared_view
from pipeline.sending import Sender, trouble
from pipeline.spool import shown, spool_folder

T = TypeVar("T")
BATCH = 100  # MLflow's limit for params and tags
TOKEN = "coppice.run"
DIGEST = "coppice.digest"
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
    "change in percent against the single-task networks, higher is better; compare runs whose `task` is `all`. Group "
    "the runs by a tag: `stage`, `strategy`, `method`. What does not fit into 25 metrics stands in a run's `tables`.",
}


class MlflowStore:
    """A tracking store behind MLflow's client; MLflow's own messages are switched off, but can be asked for again."""

    def __init__(self, uri: str) -> None:
        load_mlflow()
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

    def inputs(self, run: str, datasets: Sequence[Mapping[str, str]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self._client.log_inputs(
            run,
            [
                DatasetInput(
                    Dataset(**{key: value for key, value in dataset.items() if key != "context"}),
                    [InputTag("mlflow.data.context", dataset["context"])],
                )
                for dataset in datasets
            ],
        )

    def artifact(self, run: str, path: Path, folder: str) -> None:
        self._client.log_artifact(run, str(path), folder or None)

    def text(self, run: str, file: str, text: str) -> None:
        self._client.log_text(run, text, file)

    def model(self, run: str, folder: Path, about: Mapping[str, Any]) -> None:
        name = about["name"]
        known = self._client.search_model_versions(f"name = '{name}' and tag.`{DIGEST}` = '{about['digest']}'")
        version = known[0].version if known else self._register(run, folder, about)
        self._client.set_registered_model_alias(name, about["alias"], str(version))

    def view(self, run: str, name: str, state: Mapping[str, Any], time: int) -> None:
        import mlflow

        if mlflow.__version__.startswith(TESTED):
            experiment = self._client.get_run(run).info.experiment_id
            self._client.set_experiment_tag(experiment, *shared_view(name, state, time))

    def _register(self, run: str, folder: Path, about: Mapping[str, Any]) -> str:
        """Log a packed network as a model of this run, and make it a version of the registered model."""
        from mlflow.entities import LoggedModelOutput, Metric
        from mlflow.models.model import Model

        experiment = self._client.get_run(run).info.experiment_id
        logged = self._client.create_logged_model(experiment, about["alias"], run, tags={DIGEST: about["digest"]})
        self._client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
        model = Model(artifact_path=logged.artifact_location, run_id=run, model_id=logged.model_id)
        with TemporaryDirectory() as draft:
            _write_model(model, folder, about, Path(draft) / "model")
            self._client.log_model_artifacts(logged.model_id, str(Path(draft) / "model"))
        values = [Metric(key, value, about["time"], 0, logged.model_id) for key, value in about["metrics"].items()]
        self._client.log_batch(run, metrics=values)
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._ensure_registered(about["name"])
        made = self._client.create_model_version(
            about["name"],
            # Where there is no server MLflow would look for models:/<id> in its default store, not in this one.
            f"models:/{logged.model_id}" if self._uri.startswith("http") else logged.artifact_location,
            run,
            tags={DIGEST: about["digest"]},
            description=about["description"],
            model_id=logged.model_id,
        )
        return str(made.version)

    def _ensure_registered(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

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


def main() -> int:
    """Send what could not be sent before; 1 if anything is left."""
    from pipeline.machine import load_machine

    machine = load_machine()
    uri = machine.tracking_uri
    assert uri is not None
    sender = Sender(spool_folder(machine.storage), shown(uri), lambda: MlflowStore(uri))
    outcome = sender.send()
    print(f"tracking: sent {_count(outcome.sent)} to {shown(uri)}")
    if left := sender.left():
        reason = f": {trouble(outcome)}" if outcome.error else ""
        print(f"tracking: {_count(left)} left{reason}", file=sys.stderr)
    return 1 if left else 0


def load_mlflow() -> None:
    """Import mlflow, in a stage before its work: C libraries loaded while another thread computes may crash both."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    importlib.import_module("mlflow.tracking")


def _write_model(model: Any, folder: Path, about: Mapping[str, Any], path: Path) -> None:
    """Write a packed network as a model of MLflow's, loaded by `pipeline.serving`: nothing in it is a pickle."""
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from pandas import DataFrame

    pyfunc.save_model(
        path,
        loader_module="pipeline.serving",
        data_path=str(folder / "data"),
        code_paths=[str(part) for part in sorted((folder / "code").iterdir())],
        mlflow_model=model,
        signature=ModelSignature.from_dict({part: json.dumps(about[part]) for part in ("inputs", "outputs")}),
        input_example=DataFrame(about["example"]),
        pip_requirements=about["requirements"],
    )


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _count(events: Counter[str]) -> str:
    return f"{events.total()} events of {len(events)} runs"


if __name__ == "__main__":
    raise SystemExit(main())
