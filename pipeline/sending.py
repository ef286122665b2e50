"""The way of events from the spool to a tracking store.

Whatever a kill or a lost answer leaves undone is sent again, which is harmless: an event keeps its time, and a run its
token, by which the store knows both again.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from pipeline.spool import Cursor, Event, events_file, lock, read, read_cursor, read_from, runs, shown, write_cursor

# What MLflow says of a database that another version has made.
OTHER_SCHEMA = re.compile(r"database schema \(found version (\w+)")
UNKNOWN_SCHEMA = re.compile(r"(?:No such revision or branch|Can't locate revision identified by) '(\w+)'")
# Artifacts go after all values: a file that can't be stored (no credentials, a full disk) must not hold up the metrics.
# Models go last and when nothing else is at work: packing them imports much.
LANES = ("values", "artifacts", "models")
WHILE_AT_WORK = LANES[:2]
LANE_OF = {"artifact": "artifacts", "text": "artifacts", "model": "models"}


class Store(Protocol):
    """What sending needs of a tracking store; any method may raise, and may be called again with the same arguments."""

    def ping(self) -> None: ...
    def exists(self, run: str) -> bool: ...
    def find(self, experiment: str, token: str) -> str | None: ...
    def create(self, experiment: str, token: str, name: str, time: int, parent: str | None) -> str: ...
    def describe(self, run: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None: ...
    def log(self, run: str, metrics: Mapping[str, float], step: int, time: int) -> None: ...
    def status(self, run: str, status: str, time: int) -> None: ...
    def inputs(self, run: str, datasets: Sequence[Mapping[str, str]]) -> None: ...
    def artifact(self, run: str, path: Path, folder: str) -> None: ...
    def text(self, run: str, file: str, text: str) -> None: ...
    def model(self, run: str, folder: Path, about: Mapping[str, Any]) -> None: ...
    def view(self, run: str, name: str, state: Mapping[str, Any], time: int) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """Events sent, by run; the first thing that went wrong; whether the store was away, which ends the pass."""

    sent: Counter[str]
    error: Exception | None
    away: bool


class Sender:
    """Sends what lies in a spool, of all runs and of whichever process logged it, to the store at `uri`."""

    def __init__(self, spool: Path, uri: str, connect: Callable[[], Store]) -> None:
        self._spool, self._uri, self._connect = spool, uri, connect
        self._store: Store | None = None
        self._known: set[str] = set()
        self._done: dict[tuple[str, str], int] = {}  # size of a run's spool when a lane of it was last found sent

    def send(self, lanes: Iterable[str] = LANES) -> Outcome:
        """One pass over all runs. Only one sender at a time per spool: a second one waits. Failures are returned."""
        sent: Counter[str] = Counter()
        error, away = None, False
        with lock(self._spool):
            for lane, run in product(lanes, runs(self._spool)):
                try:
                    self._send(run, lane, sent)
                except Exception as failure:
                    error = error or failure
                    self._known.clear()
                    if away := not self._reachable():
                        break
        return Outcome(sent, error, away)

    def left(self) -> Counter[str]:
        """Events that the store does not have yet, by run."""
        return +Counter({run: sum(self._count(run, lane) for lane in LANES) for run in runs(self._spool)})

    def _count(self, run: str, lane: str) -> int:
        return sum(_is_of(lane, event) for _, event in self._pending(run, lane))

    def _pending(self, run: str, lane: str) -> Iterator[tuple[int, Event | None]]:
        offset = getattr(read_cursor(self._spool, run, self._uri), lane)
        return read_from(self._spool, run, offset)

    def _send(self, run: str, lane: str, sent: Counter[str]) -> None:
        size = events_file(self._spool, run).stat().st_size
        if self._done.get((run, lane)) == size:
            return
        # A run that is all sent is left alone, though the store may have changed or lost it; so look before binding.
        if any(self._pending(run, lane)) and (cursor := self._bind(run)):
            for end, event in self._pending(run, lane):
                if event and _is_of(lane, event):
                    _apply(self._connected(), cursor.run, event | self._linked(event))
                    sent[run] += 1
                setattr(cursor, lane, end)
                write_cursor(self._spool, run, cursor)
        self._done[run, lane] = size

    def _bind(self, run: str) -> Cursor | None:
        """The cursor of a run that the store has. A new run is created, after its parent; a lost one starts afresh."""
        cursor = read_cursor(self._spool, run, self._uri)
        if run not in self._known and not self._holds(cursor):
            opening = next(iter(read(self._spool, run)), None)
            if opening is None:
                return None
            cursor = Cursor(self._uri, self._create(opening))
            write_cursor(self._spool, run, cursor)
            self._done = {key: size for key, size in self._done.items() if key[0] != run}
        self._known.add(run)
        return cursor

    def _holds(self, cursor: Cursor) -> bool:
        return bool(cursor.run) and cursor.uri == self._uri and self._connected().exists(cursor.run)

    def _create(self, opening: Event) -> str:
        store = self._connected()
        parent = self._bind(opening["parent"]) if opening["parent"] else None
        experiment, token = opening["experiment"], opening["token"]
        return store.find(experiment, token) or store.create(
            experiment, token, opening["name"], opening["time"], parent.run if parent else None
        )

    def _linked(self, event: Event) -> Event:
        """An event's tags, with the store's ids of the runs that its links name; those not known here are left out."""
        links = {name: self._bind(run) for name, run in event.get("links", {}).items()}
        return {"tags": event["tags"] | {name: at.run for name, at in links.items() if at}} if links else {}

    def _connected(self) -> Store:
        self._store = self._store or self._connect()
        return self._store

    def _reachable(self) -> bool:
        """Whether to go on with the next run after one failed: whether the store answers at all."""
        if self._store is None:
            return False
        try:
            self._store.ping()
        except Exception:
            return False
        return True


def trouble(outcome: Outcome) -> str:
    """What stands between the store and the events, by the innermost cause: MLflow wraps it in several layers."""
    cause: BaseException | None = outcome.error
    assert cause is not None
    said = str(cause)
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
        said += f"\n{cause}"
    if found := UNKNOWN_SCHEMA.search(said):
        return (
            f"was made by a newer MLflow, whose schema {found[1]} the one here does not know: install that, or set"
            " tracking_uri in machine.yaml to another database"
        )
    if found := OTHER_SCHEMA.search(said):
        return (
            f"was made by an MLflow with another schema, {found[1]}: keep a copy of it and run `mlflow db upgrade` on"
            " it; where that does not know the schema, a newer MLflow made it"
        )
    text = shown(f"{type(cause).__name__}: {cause}").splitlines()[0][:200]
    return f"not reachable ({text})" if outcome.away else f"did not take everything ({text})"


def _apply(store: Store, run: str, event: Event) -> None:
    match event["kind"]:
        case "open":
            store.describe(run, event["params"], event["tags"])
            if "token" not in event:
                store.status(run, "RUNNING", event["time"])
        case "tags":
            store.describe(run, {}, event["tags"])
        case "data":
            store.inputs(run, event["datasets"])
        case "view":
            store.view(run, event["name"], event["state"], event["time"])
        case "log":
            store.log(run, event["metrics"], event["step"], event["time"])
        case "finish":
            store.log(run, event["metrics"], 0, event["time"])
            store.status(run, event["status"], event["time"])
        case "text":
            store.text(run, event["file"], event["text"])
        case "artifact" if Path(event["path"]).exists():
            store.artifact(run, Path(event["path"]), event["folder"])
        case "model" if Path(event["folder"]).exists():
            store.model(run, Path(event["folder"]), event)
        case "artifact":
            print(f"tracking: {event['path']} is gone and was not stored as an artifact", file=sys.stderr)


def _is_of(lane: str, event: Event | None) -> bool:
    return event is not None and LANE_OF.get(event["kind"], "values") == lane
