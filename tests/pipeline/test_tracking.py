"""Nothing logged is lost and nothing is recorded twice, whatever the store, the network or a kill does in between."""

import functools
import json
import math
import posixpath
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline import tracker as tracker_module
from pipeline import tracking
from pipeline.spool import Where, append, read, run_address, runs, sent_runs, spool_folder
from pipeline.tracked_run import Run, flatten
from pipeline.tracker import Tracker, sync

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """What a store remembers, and when it fails: at calls `down` says, before or `after` the call had its effect."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.models: dict[str, tuple[str, str, dict[str, str]]] = {}
        self.calls: list[str] = []
        self.down: Callable[[int, str], bool] = lambda _index, _method: False
        self.after = False

    def connect(self, _uri: str) -> "Client":
        return Client(self)

    def named(self, name: str) -> dict[str, Any]:
        (run,) = [run for run in self.runs.values() if run["name"] == name]
        return run


def call(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapped(self: "Client", *args: Any) -> Any:
        server = self.server
        server.calls.append(method.__name__)
        fails = server.down(len(server.calls) - 1, method.__name__)
        if fails and not server.after:
            raise ConnectionError("away")
        result = method(self, *args)
        if fails:
            raise TimeoutError("the answer was lost")
        return result

    return wrapped


class Client:
    """A store with MLflow's semantics: parameters are written once, the same point of a metric counts once."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @call
    def ping(self) -> None: ...

    @call
    def exists(self, run: str) -> bool:
        return run in self.server.runs

    @call
    def find(self, _experiment: str, token: str) -> str | None:
        return next((id for id, run in self.server.runs.items() if run["token"] == token), None)

    @call
    def create(self, experiment: str, token: str, name: str, _time: int, parent: str | None) -> str:
        assert parent is None or parent in self.server.runs
        id = f"mlflow-{len(self.server.runs)}"
        made = {"token": token, "experiment": experiment, "name": name, "parent": parent, "statuses": ["RUNNING"]}
        self.server.runs[id] = made | {"params": {}, "tags": {}, "points": {}, "artifacts": set()}
        self.server.runs[id] |= {"inputs": set(), "texts": {}, "views": {}}
        return id

    @call
    def describe(self, run: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        known = self.server.runs[run]["params"]
        assert all(known.get(name, value) == value for name, value in params.items()), "parameters are written once"
        known |= params
        self.server.runs[run]["tags"] |= tags

    @call
    def log(self, run: str, metrics: Mapping[str, float], step: int, time: int) -> None:
        self.server.runs[run]["points"] |= {(name, step, time, repr(value)): None for name, value in metrics.items()}

    @call
    def status(self, run: str, status: str, _time: int) -> None:
        self.server.runs[run]["statuses"].append(status)

    @call
    def artifact(self, run: str, path: Path, folder: str) -> None:
        self.server.runs[run]["artifacts"].add((path.name, folder))

    @call
    def inputs(self, run: str, datasets: Sequence[Mapping[str, str]]) -> None:
        self.server.runs[run]["inputs"] |= {(one["name"], one["digest"]) for one in datasets}

    @call
    def text(self, run: str, file: str, text: str) -> None:
        self.server.runs[run]["texts"][file] = text

    @call
    def view(self, run: str, name: str, state: Mapping[str, Any], _time: int) -> None:
        self.server.runs[run]["views"][name] = state

    @call
    def model(self, run: str, folder: Path, about: Mapping[str, Any]) -> None:
        bytes_of = {path.name: path.read_text() for path in sorted(folder.iterdir())}
        self.server.models[about["alias"]] = (run, about["digest"], bytes_of)


def points(server: Server, name: str) -> list[tuple[str, int, str]]:
    return sorted((key, step, value) for key, step, _, value in server.named(name)["points"])


def wait_for_points(server: Server, number: int) -> None:
    deadline = time.monotonic() + 10
    while sum(len(run["points"]) for run in server.runs.values()) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(server: Server, name: str) -> str:
    return server.named(name)["statuses"][-1]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def where(tmp_path: Path) -> Where:
    return Where(uri="fake://store", spool=tmp_path / "spool", experiment="shapes")


def offline(_uri: str) -> Client:
    raise ConnectionRefusedError("no server")


def bare(tracker: Tracker, id: str, parent: Run | None = None) -> Run:
    return tracker.run(id, name=id, tags={}, params={}, parent=parent)


def pack_model(folder: Path, name: str) -> None:
    (folder / "weights").write_text(f"of {name}")


def log_a_stage(where: Where, connect: Callable[[str], Client] = offline) -> None:
    """A stage with two trials, one of them interrupted and resumed; the children's names sort before the parent's."""
    artifact = where.spool.parent / "curve.csv"
    artifact.write_text("1")
    with Tracker(where, connect=connect) as tracker:
        stage = tracker.run("stage", name="stage", tags={"stage": "taps"}, params={"lr": 0.1})
        for name in ("a", "b"):
            links = {"baseline_run_id": "stage", "gone": "never opened"}
            trial = tracker.run(name, name=name, tags={"task": name}, params={"seed": 0}, parent=stage, links=links)
            for step in range(2):
                trial.log({"val/loss": 1 / (step + 1), "val/iou": step}, step)
            trial.artifact(artifact, "plots")
            trial.text("tables/t.csv", "1")
            trial.inputs([{"name": "scenes", "digest": "0"}])
            trial.model({"name": "n", "alias": name, "digest": "0"}, functools.partial(pack_model, name=name))
            trial.finish({"final/delta_mtl": 2.5}, "FINISHED" if name == "a" else "KILLED")
        stage.view("comparison", {"searchFilter": ""})
        stage.finish({})
    with Tracker(where, connect=connect) as tracker:
        again = tracker.run("b", name="b", tags={"task": "b"}, params={"seed": 0})
        for step in range(1, 3):
            again.log({"val/loss": 1 / (step + 1), "val/iou": step}, step)
        again.finish({"final/delta_mtl": 2.5})


def assert_holds_the_stage(server: Server) -> None:
    steps = {"a": range(2), "b": range(3)}
    assert sorted(run["name"] for run in server.runs.values()) == ["a", "b", "stage"]
    stage = server.named("stage")
    assert stage["views"] == {"comparison": {"searchFilter": ""}}
    assert (stage["params"], stage["tags"], stage["experiment"]) == ({"lr": "0.1"}, {"stage": "taps"}, "shapes")
    for name in ("a", "b"):
        run = server.named(name)
        assert server.runs[run["parent"]] is stage
        assert (run["params"], run["tags"]) == ({"seed": "0"}, {"task": name, "baseline_run_id": run["parent"]})
        assert run["artifacts"] == {("curve.csv", "plots")}
        assert (run["texts"], run["inputs"]) == ({"tables/t.csv": "1"}, {("scenes", "0")})
        assert server.models[name] == (
            next(id for id, one in server.runs.items() if one is run),
            "0",
            {"weights": f"of {name}"},
        )
        expected = [("val/iou", s, repr(float(s))) for s in steps[name]]
        expected += [("val/loss", s, repr(1 / (s + 1))) for s in steps[name]]
        assert points(server, name) == [("final/delta_mtl", 0, "2.5"), *expected]
    assert [end(server, name) for name in ("a", "b", "stage")] == ["FINISHED"] * 3


def broken_at(index: int) -> Callable[[int, str], bool]:
    return lambda call, _method: call == index


def broken_from(index: int) -> Callable[[int, str], bool]:
    return lambda call, _method: call >= index


@pytest.mark.parametrize("after", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("broken", [broken_at, broken_from])
def test_nothing_is_lost_or_doubled_wherever_the_store_fails(
    tmp_path: Path, after: bool, broken: Callable[[int], Callable[[int, str], bool]]
) -> None:
    for index in count():
        server = Server()
        server.down, server.after = broken(index), after
        folder = tmp_path / str(index)
        folder.mkdir()
        where = Where(uri="fake://store", spool=folder / "spool", experiment="shapes")
        log_a_stage(where)
        events = sum(len(read(where.spool, run)) for run in runs(where.spool))
        sent, left = sync(where, connect=server.connect)
        assert sent + left == events
        hit = len(server.calls) > index
        server.down = broken_at(-1)
        assert sync(where, connect=server.connect) == (left, 0)
        assert_holds_the_stage(server)
        if not hit:
            assert index > 20
            return


def test_a_live_store_gets_everything_before_close_returns(where: Where, server: Server) -> None:
    log_a_stage(where, server.connect)
    assert_holds_the_stage(server)
    assert sync(where, connect=server.connect) == (0, 0)


def test_reopening_says_nothing_twice_but_what_is_new_or_changed(where: Where, server: Server) -> None:
    with Tracker(where, connect=server.connect) as tracker:
        run = tracker.run("r", name="r", tags={"a": "1", "b": "1"}, params={"lr": 0.1})
        run.log({"x": 1.0, "y": math.nan}, 0)
        run.finish({"z": 3}, "FAILED")
    first = run.mlflow_id
    with Tracker(where, connect=server.connect) as tracker:
        run = tracker.run("r", name="r", tags={"a": "1", "b": "2"}, params={"lr": 0.2, "new": 1})
        run.log({"x": 1.0, "y": math.nan}, 0)
        run.log({"x": 2.0}, 0)
    assert run.mlflow_id == first
    assert server.named("r")["statuses"] == ["RUNNING", "FAILED", "RUNNING"]
    assert server.named("r")["params"] == {"lr": "0.1", "new": "1"}
    assert server.named("r")["tags"] == {"a": "1", "b": "2"}
    assert points(server, "r") == [("x", 0, "1.0"), ("x", 0, "2.0"), ("y", 0, "nan"), ("z", 0, "3.0")]
    assert read(where.spool, "r")[3]["tags"] == {"b": "2"}


def test_a_line_torn_anywhere_costs_that_line_alone(tmp_path: Path) -> None:
    def event(step: int) -> dict[str, Any]:
        return {"kind": "log", "time": step, "step": step, "metrics": {"x": step}}

    append(tmp_path, "r", event(0))
    whole = (tmp_path / "r.jsonl").stat().st_size
    append(tmp_path, "r", event(1))
    content = (tmp_path / "r.jsonl").read_bytes()
    for cut in range(whole, len(content)):
        (tmp_path / "r.jsonl").write_bytes(content[:cut])
        assert [e["step"] for e in read(tmp_path, "r")] == [0]
        append(tmp_path, "r", event(2))
        assert [e["step"] for e in read(tmp_path, "r")] in ([0, 2], [0, 1, 2] if cut == len(content) - 1 else [])


@pytest.mark.parametrize("cut", [1, 30, 10_000])
def test_a_run_whose_spool_was_torn_is_taken_up_again(where: Where, server: Server, cut: int) -> None:
    with Tracker(where, connect=offline) as tracker:
        bare(tracker, "r")
    path = where.spool / "r.jsonl"
    path.write_bytes(path.read_bytes()[:-1][:cut])
    with Tracker(where, connect=server.connect) as tracker:
        bare(tracker, "r").log({"x": 1}, 0)
    assert points(server, "r") == [("x", 0, "1.0")]
    assert sync(where, connect=server.connect) == (0, 0)


def test_a_killed_process_loses_nothing_it_logged(where: Where, server: Server) -> None:
    script = f"""
import os, signal, threading
from pathlib import Path
from pipeline.spool import Where
from pipeline.tracker import Tracker
where = Where(uri="fake://store", spool=Path({str(where.spool)!r}), experiment="shapes")
run = Tracker(where, connect=lambda uri: threading.Event().wait()).run("r", name="r", tags={{}}, params={{}})
for step in range(50):
    run.log({{"x": step}}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert sync(where, connect=server.connect) == (51, 0)
    assert points(server, "r") == sorted(("x", step, repr(float(step))) for step in range(50))


def test_a_store_that_does_not_answer_holds_nobody_up(where: Where, capsys: pytest.CaptureFixture[str]) -> None:
    gate = threading.Event()
    server = Server()

    def stuck(uri: str) -> Client:
        gate.wait()
        return server.connect(uri)

    tracker = Tracker(where, connect=stuck)
    run = bare(tracker, "r")
    start = time.monotonic()
    for step in range(20):
        run.log({"x": step}, step)
    tracker.close(timeout=0.1)
    assert time.monotonic() - start < 1
    assert run.mlflow_id is None
    assert str(where.spool) in capsys.readouterr().err
    gate.set()
    tracker.close()
    assert len(points(server, "r")) == 20


def test_a_store_that_is_away_is_told_of_once_and_asked_again(
    where: Where, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "RETRY_S", 0.01)
    server.down = lambda index, _method: index < 10
    with Tracker(where, connect=server.connect) as tracker:
        run = bare(tracker, "r")
        for step in range(5):
            run.log({"x": step}, step)
        wait_for_points(server, 5)
    assert len(points(server, "r")) == 5
    assert capsys.readouterr().err == (
        f"tracking: fake://store not reachable (ConnectionError: away); runs go on, metrics are kept in {where.spool}; "
        "send them later with: python -m pipeline.tracking\n"
    )


def test_the_next_process_sends_what_an_earlier_one_could_not(where: Where, server: Server) -> None:
    log_a_stage(where)
    with Tracker(where, connect=server.connect) as tracker:
        bare(tracker, "other")
    del server.runs[next(id for id, run in server.runs.items() if run["name"] == "other")]
    assert_holds_the_stage(server)


def test_an_artifact_that_is_gone_is_named_and_left_out(
    where: Where, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with Tracker(where, connect=offline) as tracker:
        bare(tracker, "r").artifact(where.spool / "gone.png")
    capsys.readouterr()
    assert sync(where, connect=server.connect) == (2, 0)
    assert "gone.png is gone" in capsys.readouterr().err


def test_trouble_with_artifacts_or_one_run_does_not_hold_up_the_rest(where: Where, server: Server) -> None:
    log_a_stage(where)
    server.down = lambda _index, method: method == "artifact"
    assert sync(where, connect=server.connect)[1] == 4  # each trial has a file and, after it, a text
    assert [end(server, name) for name in ("a", "b", "stage")] == ["FINISHED"] * 3
    (where.spool / "0.jsonl").write_text('{"kind": "log"}\n')
    server.down = broken_at(-1)
    assert sync(where, connect=server.connect) == (4, 1)
    assert_holds_the_stage(server)


def test_a_run_that_the_store_lost_starts_afresh_when_it_goes_on(where: Where) -> None:
    log_a_stage(where, Server().connect)
    other = Server()
    assert sync(where, connect=other.connect) == (0, 0)
    log_a_stage(where, other.connect)
    assert_holds_the_stage(other)


def test_runs_deleted_while_they_train_start_afresh(
    where: Where, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "RETRY_S", 0.01)
    with Tracker(where, connect=server.connect) as tracker:
        parent = bare(tracker, "stage")
        parent.log({"x": 0}, 0)
        run = bare(tracker, "r", parent)
        run.log({"x": 0}, 0)
        wait_for_points(server, 2)
        server.runs.clear()
        run.log({"x": 1}, 1)
        wait_for_points(server, 3)
    assert points(server, "stage") == [("x", 0, "0.0")]


def test_a_run_that_goes_on_under_another_uri_moves_there_whole(where: Where, tmp_path: Path) -> None:
    servers = Server(), Server()
    # Both stores know a run of the same id; the one of the new store is somebody else's.
    log_a_stage(Where(uri="fake://new", spool=tmp_path / "elsewhere", experiment="shapes"), servers[1].connect)
    strangers = set(servers[1].runs)
    log_a_stage(where, servers[0].connect)
    log_a_stage(Where(uri="fake://new", spool=where.spool, experiment="shapes"), servers[1].connect)
    assert_holds_the_stage(servers[0])
    for id in strangers:
        del servers[1].runs[id]
    assert_holds_the_stage(servers[1])


def test_two_senders_at_once_send_each_event_once(where: Where, server: Server) -> None:
    log_a_stage(where)
    total = sum(len(read(where.spool, run)) for run in runs(where.spool))
    sent: list[int] = []
    threads = [threading.Thread(target=lambda: sent.append(sync(where, connect=server.connect)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sent) == total
    assert_holds_the_stage(server)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_leaving_by_an_exception_ends_open_runs(
    where: Where, server: Server, error: type[BaseException], status: str
) -> None:
    def stage() -> None:
        with Tracker(where, connect=server.connect) as tracker:
            bare(tracker, "done").finish({})
            bare(tracker, "open")
            raise error

    with pytest.raises(error):
        stage()
    assert (end(server, "done"), end(server, "open")) == ("FINISHED", status)


@pytest.mark.parametrize("key", ["mAP@0.5", "/a//b/../c/", "Δ", "a\nb", "..", "", "x" * 249 + "/y", "a.b-c d:e"])
def test_keys_become_ones_that_mlflow_takes(key: str) -> None:
    (clean,) = flatten({key: 1})
    # MLflow's two rules: allowed characters, and no name that a path would write in another way.
    assert re.fullmatch(r"[/\w.\- :]{1,250}", clean)
    assert posixpath.normpath(clean) == clean
    assert clean[0] != "/"
    assert not clean.startswith("..")


def test_parameters_are_flattened_with_dots_and_cut() -> None:
    nested = {"train": {"lr": 0.1, "augment": {"flip": True}}, "tasks": ["seg", "depth"], "none": None}
    flat = {"train.lr": "0.1", "train.augment.flip": "True", "tasks": "['seg', 'depth']", "none": "None"}
    assert flatten(nested) == flat
    assert len(flatten({"long": "x" * 10_000})["long"]) == 6000


def test_a_password_in_the_uri_is_neither_stored_nor_printed(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    where = Where(uri="https://me:secret@host/mlflow", spool=tmp_path, experiment="shapes")
    for connect in (offline, server.connect):
        with Tracker(where, connect=connect) as tracker:
            run = bare(tracker, "r")
    assert run.mlflow_id == "mlflow-0"
    stored = "".join(path.read_text() for path in tmp_path.iterdir())
    printed = capsys.readouterr().err
    assert "https://host/mlflow" in printed
    assert "secret" not in stored + printed


def test_ids_may_hold_any_character(where: Where, server: Server) -> None:
    ids = ["../up", "a/b", "a.b", "a b", "ä"]
    with Tracker(where, connect=server.connect) as tracker:
        for id in ids:
            bare(tracker, id).log({"x": 1}, 0)
    assert runs(where.spool) == sorted(ids, key=runs(where.spool).index)
    assert sorted(run["name"] for run in server.runs.values()) == sorted(ids)


def test_the_command_sends_says_how_much_and_fails_if_some_is_left(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    where = Where(uri="fake://store", spool=spool_folder(str(tmp_path / "runs")), experiment="shapes")
    (tmp_path / "runs").mkdir()
    log_a_stage(where)
    capsys.readouterr()
    server.down = lambda index, _method: index > 5
    monkeypatch.setattr(tracking, "MlflowStore", server.connect)
    assert tracking.main() == 1
    said = capsys.readouterr()
    assert re.match(r"tracking: sent \d+ events of \d runs to sqlite:///", said.out)
    assert re.match(r"tracking: \d+ events of 3 runs left: not reachable \(ConnectionError: away\)", said.err)
    server.down = broken_at(-1)
    assert tracking.main() == 0
    assert capsys.readouterr().err == ""
    assert_holds_the_stage(server)


def test_what_is_said_once_is_not_said_again(where: Where, server: Server) -> None:
    packed: list[Path] = []
    for digest in ("0", "0", "1"):
        with Tracker(where, connect=server.connect) as tracker:
            run = bare(tracker, "r")
            run.text("t.csv", digest)
            run.inputs([{"name": "scenes", "digest": digest}])
            run.model({"name": "n", "alias": "champion", "digest": digest}, packed.append)
    assert [event["kind"] for event in read(where.spool, "r")].count("text") == 2
    assert [event["kind"] for event in read(where.spool, "r")].count("data") == 2
    assert [folder.parent.name for folder in packed] == ["champion"] * 2
    assert server.runs[str(run.mlflow_id)]["texts"] == {"t.csv": "1"}


def test_models_go_when_nothing_else_is_at_work(where: Where, server: Server) -> None:
    with Tracker(where, connect=server.connect) as tracker:
        run = bare(tracker, "r")
        run.model({"name": "n", "alias": "champion", "digest": "0"}, lambda folder: pack_model(folder, "r"))
        run.log({"x": 1.0}, 0)
        wait_for_points(server, 1)
        assert not server.models
    assert server.models["champion"][2] == {"weights": "of r"}


@pytest.mark.parametrize("order", ["aba", "bab", "aab", "abb"])
@pytest.mark.parametrize("connected", [True, False])
def test_an_alias_is_the_last_that_was_said(where: Where, server: Server, order: str, connected: bool) -> None:
    """Whatever the order in which the runs are sent, which is not that of time."""
    for name in order:
        with Tracker(where, connect=server.connect if connected else offline) as tracker:
            about = {"name": "n", "alias": "champion", "digest": name}
            bare(tracker, name).model(about, functools.partial(pack_model, name=name))
    sync(where, connect=server.connect)
    run, digest, files = server.models["champion"]
    assert (server.runs[run]["name"], digest, files) == (order[-1], order[-1], {"weights": f"of {order[-1]}"})
    assert [path.name for path in (where.spool / "models/n/champion").iterdir()] == [order[-1]]


def test_a_run_of_an_earlier_process_can_be_spoken_of_without_being_opened_again(where: Where, server: Server) -> None:
    with Tracker(where, connect=server.connect) as tracker:
        bare(tracker, "r").finish({})
    with Tracker(where, connect=server.connect) as tracker:
        bare(tracker, "other")
        assert tracker.known("nobody") is None
        known = tracker.known("r")
        assert known is not None
        known.text("t.csv", "1")
    assert (server.named("r")["texts"], server.named("r")["statuses"]) == ({"t.csv": "1"}, ["RUNNING", "FINISHED"])


def test_runs_that_the_store_has_are_known_by_their_ids_there(where: Where, server: Server) -> None:
    log_a_stage(where)
    assert sent_runs(where.spool, where.uri) == {}
    sync(where, connect=server.connect)
    found = sent_runs(where.spool, where.uri)
    assert {id: server.runs[run]["name"] for id, run in found.items()} == {"a": "a", "b": "b", "stage": "stage"}
    assert sent_runs(where.spool, "fake://other") == {}
    assert run_address("https://user:secret@mlflow:5000/", "1") == "https://mlflow:5000/#/runs/1"
    assert run_address("sqlite:////x/mlflow.db", "1") == "http://127.0.0.1:5000/#/runs/1"


def test_the_spool_lies_beside_the_runs_or_here_if_they_are_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert spool_folder("/data/runs") == Path("/data/runs/tracking")
    assert spool_folder("s3://bucket/runs") == tmp_path / "runs/tracking"


def test_importing_is_cheap() -> None:
    script = (
        "import sys, pipeline.tracker; print(sorted({'mlflow', 'torch', 'ray', 'numpy', 'pydantic'} & {*sys.modules}))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True) == "[]\n"


REAL = """
import os, socket, sys
from pathlib import Path
from pipeline.spool import Where
from pipeline.tracker import Tracker, sync
root, spool = Path(sys.argv[1]), Path(sys.argv[1]) / "spool"
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
away = Where(uri=f"http://127.0.0.1:{port}", spool=spool, experiment="sharing/shapes")
here = Where(uri=f"sqlite:///{root / 'mlflow.db'}", spool=spool, experiment="sharing/shapes")
with Tracker(away) as tracker:
    stage = tracker.run("stage", name="stage", tags={"stage": "taps"}, params={"train": {"lr": 0.1}})
    trial = tracker.run("a", name="trial", tags={}, params={f"p{i}": i for i in range(250)}, parent=stage)
    trial.log({"val/loss": 1.0, "nan": float("nan"), "inf": float("inf"), "mAP@0.5": 0.5}, 1)
    trial.artifact(root / "plot.txt", "plots")
    trial.artifact(root / "folder")
    trial.finish({}, "FAILED")
assert sync(here) == (6, 0)
for cursor in spool.glob("*.cursor"):
    cursor.unlink()  # as if killed before any of it was written: all is sent twice
assert sync(here) == (6, 0)
with Tracker(here) as tracker:
    trial = tracker.run("a", name="trial", tags={}, params={"p0": 0, "late": 1})
    trial.log({"val/loss": 1.0}, 1)
    trial.log({"val/loss": 0.5}, 2)
    trial.finish({"final/delta_mtl": 2.5})
print(trial.mlflow_id)
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run logged while its server is away, sent to sqlite, sent again, resumed; in a process of its own."""
    root = tmp_path_factory.mktemp("mlflow")
    (root / "plot.txt").write_text("plot")
    (root / "folder").mkdir()
    (root / "folder/inside.txt").write_text("inside")
    (root / "elsewhere").mkdir()
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{REAL}", str(root)]
    return root, subprocess.run(command, cwd=root / "elsewhere", capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_mlflow_holds_the_run_as_sqlite_itself_sees_it(real: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    root, process = real
    assert process.returncode == 0, process.stderr
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        ask = database.execute
        run_ids = dict(ask("select name, run_uuid from runs").fetchall())
        stage, trial = run_ids["stage"], run_ids["trial"]
        statuses = ask("select name, status from runs").fetchall()
        tags = dict(ask("select key, value from tags where run_uuid = ?", [trial]).fetchall())
        params = dict(ask("select key, value from params where run_uuid = ?", [trial]).fetchall())
        history = ask("select key, step, value from metrics where run_uuid = ? and is_nan = 0", [trial]).fetchall()
        nans = ask("select key, step from metrics where is_nan = 1").fetchall()
        experiment = dict(ask("select key, value from experiment_tags").fetchall())
        stage_params = ask("select key, value from params where run_uuid = ?", [stage]).fetchall()
    assert sorted(statuses) == [("stage", "RUNNING"), ("trial", "FINISHED")]
    assert tags["mlflow.parentRunId"] == stage
    assert stage_params == [("train.lr", "0.1")]
    assert params == {f"p{i}": str(i) for i in range(250)} | {"late": "1"}
    expected = [("final/delta_mtl", 0, 2.5), ("inf", 1, sys.float_info.max), ("mAP_0.5", 1, 0.5)]
    assert sorted(history) == [*expected, ("val/loss", 1, 1.0), ("val/loss", 2, 0.5)]
    assert nans == [("nan", 1)]
    assert experiment["mlflow.experiment.primaryMetric.name"] == "final/delta_mtl"
    stored = root / "mlartifacts" / trial / "artifacts"
    assert (stored / "plots/plot.txt").read_text() == "plot"
    assert (stored / "folder/inside.txt").read_text() == "inside"
    assert process.stdout == f"{trial}\n"


@pytest.mark.slow
def test_mlflow_itself_says_nothing_and_leaves_nothing_here(
    real: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    root, process = real
    (line,) = process.stderr.splitlines()
    assert re.match(r"tracking: http://127.0.0.1:\d+ not reachable \(ConnectionRefusedError", line)
    assert list((root / "elsewhere").iterdir()) == []
    assert json.loads((root / "spool/a.cursor").read_text())["uri"].startswith("sqlite:///")
