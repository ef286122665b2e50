"""What runs log, on disk before it goes anywhere.

`<run>.jsonl` holds one event per line; `<run>.cursor` says which run of which store has how much of it.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

Event = dict[str, Any]
UI = "http://127.0.0.1:5000"  # where `make ui` shows a store that is no server


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
    models: int = 0


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


def sent_runs(spool: Path, uri: str) -> dict[str, str]:
    """Map the runs that the store at `uri` has, by their ids here (a job's is its key), to their ids there."""
    cursors = {run: read_cursor(spool, run, shown(uri)) for run in runs(spool)}
    return {run: cursor.run for run, cursor in cursors.items() if cursor.run and cursor.uri == shown(uri)}


def run_address(uri: str, run: str) -> str:
    """Map a tracking URI and a run's id there to its page: on that server, or on the one that `make ui` starts."""
    server = shown(uri).rstrip("/") if uri.startswith(("http://", "https://")) else UI
    return f"{server}/#/runs/{run}"


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


def spool_folder(storage: str) -> Path:
    """Map machine.yaml's storage to the spool's folder: beside the runs, or in `runs` here if they lie elsewhere."""
    return Path("runs" if "://" in storage else storage).resolve() / "tracking"


def events_file(spool: Path, run: str) -> Path:
    """Where a run's events lie."""
    return spool / f"{quote(run, safe='')}.jsonl"


def shown(uri: str) -> str:
    """A URI, or a text with some, without users, passwords and keys: fit to be printed and stored."""
    plain = re.sub(r"//[^/\s]*@", "//", uri)
    return re.sub(r"([?&][^=&\s]*(?:key|token|secret|password)[^=&\s]*=)[^&\s]+", r"\1...", plain, flags=re.IGNORECASE)


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _cursor_file(spool: Path, run: str) -> Path:
    return events_file(spool, run).with_suffix(".cursor")
