"""What runs log, on disk before it goes anywhere.

`<run>.jsonl` holds one event per line; `<run>.cursor` says which run of which store has how much of it.
"""

import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

Event = dict[str, Any]
KEY_LENGTH, PARAM_LENGTH, TAG_LENGTH = 250, 6000, 8000  # MLflow's limits


@dataclass(frozen=True, kw_only=True)
class Where:
    """A tracking URI, the folder that keeps events until they are sent, and the experiment of new runs."""

    uri: str
    spool: Path
    experiment: str


@dataclass
class Cursor:
    """How many bytes of a run's spool `uri` has, by lane, and the run's id there."""

    uri: str
    run: str = ""
    values: int = 0
    artifacts: int = 0


class Run:
    """One run. The same id opens the same MLflow run again: what it has been told is not told twice."""

    def __init__(self, id: str, where: Where, wake: Callable[[], None]) -> None:
        self.id = id
        self.finished = False
        self._where, self._wake = where, wake
        self._logged: dict[tuple[str, int], str] = {}

    def open(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any], parent: "Run | None") -> None:
        """Start the run, or take it up again with those params and tags that are new."""
        told: dict[str, dict[str, str]] = {"params": {}, "tags": {}}
        earlier = read(self._where.spool, self.id)
        for event in earlier:
            for kind in told.keys() & event.keys():
                told[kind] |= event[kind]
            self._logged |= {(k, event.get("step", 0)): repr(v) for k, v in event.get("metrics", {}).items()}
        now = {
            "params": {k: v for k, v in flatten(params).items() if k not in told["params"]},
            "tags": {k: v for k, v in _tags(tags).items() if told["tags"].get(k) != v},
        }
        if not earlier:
            now |= {"token": uuid.uuid4().hex, "experiment": self._where.experiment, "name": name[:KEY_LENGTH]}
            now |= {"parent": parent.id if parent else None}
        self._append("open", now)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record values of a step. Values that the step has already, as when a resumed run repeats it, are left out."""
        if new := self._new(metrics, step):
            self._append("log", {"metrics": new, "step": step})

    def finish(self, metrics: Mapping[str, float], status: str = "FINISHED") -> None:
        """Record final values and how the run ended: FINISHED, FAILED or KILLED."""
        assert status in ("FINISHED", "FAILED", "KILLED"), status
        self.finished = True
        self._append("finish", {"metrics": self._new(metrics, 0), "status": status})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file, or a folder under its own name, with the run; it is read when it is sent, not now."""
        # Not resolved: a link into DVC's cache would give the artifact a hash for a name.
        self._append("artifact", {"path": str(path.absolute()), "folder": folder})

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

    def _append(self, kind: str, content: Mapping[str, Any]) -> None:
        append(self._where.spool, self.id, {"kind": kind, "time": int(time.time() * 1000), **content})
        self._wake()


def append(spool: Path, run: str, event: Event) -> None:
    """Add one event to a run's spool; on return it outlives this process."""
    spool.mkdir(parents=True, exist_ok=True)
    path = events_file(spool, run)
    line = json.dumps(event).encode() + b"\n"
    # One unbuffered write per line, so that nobody reads half an event and two writers don't mix theirs. A line torn by
    # a kill is closed first: the reader skips it, and the new event stays whole.
    with path.open("ab", buffering=0) as file:
        file.write(b"\n" + line if _is_torn(path) else line)


def read(spool: Path, run: str) -> list[Event]:
    """All whole events of a run, oldest first; none if the run is new."""
    return [event for _, event in read_from(spool, run, 0) if event]


def read_cursor(spool: Path, run: str, uri: str) -> Cursor:
    """How far a run is sent; a fresh cursor for `uri` if nothing of it is known."""
    try:
        return Cursor(**json.loads(_cursor_file(spool, run).read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return Cursor(uri)


def read_from(spool: Path, run: str, offset: int) -> Iterator[tuple[int, Event | None]]:
    """(where the line ends, its event or None if it was torn) of each whole line from byte `offset` on."""
    path = events_file(spool, run)
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                yield offset, json.loads(line)
            except ValueError:
                yield offset, None


def write_cursor(spool: Path, run: str, cursor: Cursor) -> None:
    """Replace a run's cursor as a whole, so that a kill leaves the old one or the new one."""
    path = _cursor_file(spool, run)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(cursor)))
    os.replace(temporary, path)


def runs(spool: Path) -> list[str]:
    """The ids of all runs in a spool."""
    return sorted(unquote(path.stem) for path in spool.glob("*.jsonl"))


@contextmanager
def lock(spool: Path) -> Iterator[None]:
    """Keep other senders of this spool out, those of other processes too; wait until they are done."""
    spool.mkdir(parents=True, exist_ok=True)
    with (spool / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Not left to closing: a forked loader process may hold a copy of this file.
            fcntl.flock(file, fcntl.LOCK_UN)


def events_file(spool: Path, run: str) -> Path:
    """Where a run's events lie."""
    return spool / f"{quote(run, safe='')}.jsonl"


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Map nested parameters to flat ones as MLflow takes them: {"train": {"lr": 0.1}} -> {"train.lr": "0.1"}."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[_key(f"{prefix}{name}")] = str(value)[:PARAM_LENGTH]
    return flat


def shown(uri: str) -> str:
    """A URI, or a text with some, without users, passwords and keys: fit to be printed and stored."""
    plain = re.sub(r"//[^/\s]*@", "//", uri)
    return re.sub(r"([?&][^=&\s]*(?:key|token|secret|password)[^=&\s]*=)[^&\s]+", r"\1...", plain, flags=re.IGNORECASE)


def _key(name: str) -> str:
    """The nearest name that MLflow takes: of its characters, and not to be mistaken for another path."""
    parts = re.sub(r"[^\w\-. :/]", "_", name)[:KEY_LENGTH].split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "_"


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_key(name): str(value)[:TAG_LENGTH] for name, value in tags.items()}


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _cursor_file(spool: Path, run: str) -> Path:
    return events_file(spool, run).with_suffix(".cursor")
