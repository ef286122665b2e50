"""One run as its process tells of it: events for the spool, each said once, in names and lengths that MLflow takes."""

import json
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.spool import Event, Where, append, read, read_cursor, shown

KEY_LENGTH, PARAM_LENGTH, TAG_LENGTH = 250, 6000, 8000  # MLflow's limits
ONCE = ("data", "text", "view")  # kinds of events that are not repeated


class Run:
    """One run. The same id opens the same MLflow run again: what it has been told is not told twice."""

    def __init__(self, id: str, where: Where, wake: Callable[[], None]) -> None:
        self.id = id
        self.finished = False
        self._where, self._wake = where, wake
        self._logged: dict[tuple[str, int], str] = {}
        self._said: set[str] = set()

    def open(
        self,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: str | None,
        links: Mapping[str, str],
    ) -> None:
        """Start the run, or take it up again with those params, tags and links that are new."""
        earlier = self.recall()
        told = _told(earlier)
        now: dict[str, Any] = {
            "params": {k: v for k, v in flatten(params).items() if k not in told["params"]},
            "tags": {k: v for k, v in _tags(tags).items() if told["tags"].get(k) != v},
            "links": {k: v for k, v in links.items() if told["links"].get(k) != v},
        }
        if not earlier:
            now |= {"token": uuid.uuid4().hex, "experiment": self._where.experiment, "name": name[:KEY_LENGTH]}
            now |= {"parent": parent}
        self._append("open", now)

    def recall(self) -> list[Event]:
        """Read what the spool has of the run: none of that is said again."""
        earlier = read(self._where.spool, self.id)
        for event in earlier:
            self._logged |= {(k, event.get("step", 0)): repr(v) for k, v in event.get("metrics", {}).items()}
            if event["kind"] in ONCE:
                self._said.add(_mark(event))
        return earlier

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record values of a step. Values that the step has already, as when a resumed run repeats it, are left out."""
        if new := self._new(metrics, step):
            self._append("log", {"metrics": new, "step": step})

    def describe(self, tags: Mapping[str, str]) -> None:
        """Set further tags."""
        self._append("tags", {"tags": _tags(tags)})

    def inputs(self, datasets: Sequence[Mapping[str, str]]) -> None:
        """Record what the run reads; each data set has a name, digest, source, schema, profile and context."""
        self._once("data", {"datasets": [dict(dataset) for dataset in datasets]})

    def finish(self, metrics: Mapping[str, float], status: str = "FINISHED") -> None:
        """Record final values and how the run ended: FINISHED, FAILED or KILLED."""
        assert status in ("FINISHED", "FAILED", "KILLED"), status
        self.finished = True
        self._append("finish", {"metrics": self._new(metrics, 0), "status": status})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file, or a folder under its own name, with the run; it is read when it is sent, not now."""
        # Not resolved: a link into DVC's cache would give the artifact a hash for a name.
        self._append("artifact", {"path": str(path.absolute()), "folder": folder})

    def text(self, file: str, text: str) -> None:
        """Keep a text with the run as a file of this name."""
        self._once("text", {"file": file, "text": text})

    def model(self, about: Mapping[str, Any], pack: Callable[[Path], None]) -> None:
        """Register a model under a name and an alias; `pack` fills its folder (see `pipeline.registering`).

        The folder stays, for other stores, until the alias goes to another model.
        """
        place = self._where.spool / "models" / about["name"] / about["alias"]
        folder = place / about["digest"]
        if folder.exists():
            return
        shutil.rmtree(place, ignore_errors=True)
        draft = place / "draft"
        draft.mkdir(parents=True)
        pack(draft)
        # In this order: a kill between the two leaves an event that is not acted on, not a model that nobody sends.
        self._append("model", {"folder": str(folder), **about})
        draft.rename(folder)

    def view(self, name: str, state: Mapping[str, Any]) -> None:
        """Give the run's experiment a named view of its runs (see `pipeline.run_view`)."""
        self._once("view", {"name": name, "state": dict(state)})

    @property
    def mlflow_id(self) -> str | None:
        """The run's id in the store; None until the run has been sent there."""
        uri = shown(self._where.uri)
        cursor = read_cursor(self._where.spool, self.id, uri)
        return (cursor.run or None) if cursor.uri == uri else None

    def _new(self, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        values = {_key(name): float(value) for name, value in metrics.items()}
        new = {k: v for k, v in values.items() if self._logged.get((k, step)) != repr(v)}
        self._logged |= {(k, step): repr(v) for k, v in new.items()}
        return new

    def _once(self, kind: str, content: Mapping[str, Any]) -> None:
        if (mark := _mark({"kind": kind, **content})) not in self._said:
            self._said.add(mark)
            self._append(kind, content)

    def _append(self, kind: str, content: Mapping[str, Any]) -> None:
        append(self._where.spool, self.id, {"kind": kind, "time": int(time.time() * 1000), **content})
        self._wake()


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Map nested parameters to flat ones as MLflow takes them: {"train": {"lr": 0.1}} -> {"train.lr": "0.1"}."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[_key(f"{prefix}{name}")] = str(value)[:PARAM_LENGTH]
    return flat


def _key(name: str) -> str:
    """The nearest name that MLflow takes: of its characters, and not to be mistaken for another path."""
    parts = re.sub(r"[^\w\-. :/]", "_", name)[:KEY_LENGTH].split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "_"


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_key(name): str(value)[:TAG_LENGTH] for name, value in tags.items()}


def _told(events: Sequence[Event]) -> dict[str, dict[str, str]]:
    """The params, tags and links that events have set."""
    told: dict[str, dict[str, str]] = {"params": {}, "tags": {}, "links": {}}
    for event in events:
        for kind in told.keys() & event.keys():
            told[kind] |= event[kind]
    return told


def _mark(event: Event) -> str:
    return json.dumps({key: value for key, value in event.items() if key != "time"}, sort_keys=True)
