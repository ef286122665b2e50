"""No file of data runs code, nothing listens beyond this machine, and no secret stands where others read."""

import ast
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from models.sharing import SHARING
from pipeline import loop
from pipeline.artifacts import read_manifests
from pipeline.config import ROOT
from pipeline.machine import load_machine
from pipeline.spool import Where, shown
from pipeline.tracker import Tracker
from stages.session import start
from tests.pipeline.cases import DECODING, QUIET, make_job, prepare, settings, site

SOURCES = sorted(path for folder in ("models", "pipeline", "stages") for path in (ROOT / folder).rglob("*.py"))
RUNS_CODE = {"eval", "exec", "compile", "__import__", "execfile"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "runpy"}
# A reader of the user's own is looked at here, not read: whether it can go to other processes.
PICKLES = {"pipeline/datasets/_custom.py": {"pickle.dump"}}
IMPORTS_BY_NAME = {"pipeline/datasets/_custom.py": "the user's own reader", "pipeline/tracking.py": "a constant"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a file, by its dotted name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> Mapping[str, object]:
    return {word.arg: word.value.value for word in call.keywords if word.arg and isinstance(word.value, ast.Constant)}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_read_by_what_can_run_code(path: Path) -> None:
    allowed, used = PICKLES.get(name_of(path), set()), set()
    for name, call in calls(path):
        base, _, last = name.rpartition(".")
        assert name not in RUNS_CODE, f"{name} in line {call.lineno}"
        if name == "torch.load":
            assert keywords(call).get("weights_only") is True, f"line {call.lineno}"
        if base in ("np", "numpy", "np.lib.format") and last in ("load", "read_array"):
            assert keywords(call).get("allow_pickle") is False, f"line {call.lineno}"
        if last == "YAML":
            assert keywords(call).get("typ", "rt") in ("rt", "safe"), f"line {call.lineno}"
        if name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
            pytest.fail(f"{name} in line {call.lineno}: it starts a shell")
        if base == "subprocess":
            assert "shell" not in {word.arg for word in call.keywords}, f"line {call.lineno}"
            assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr), f"line {call.lineno}: give a list"
        if base.split(".")[0] in UNSAFE_MODULES:
            used.add(name)
    assert used == allowed
    assert allowed or not (UNSAFE_MODULES | {"yaml"}) & _imported(path)  # PyYAML's tags can name functions


def _imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


def test_only_a_reader_of_ones_own_is_imported_by_name() -> None:
    """The one way from settings to code; it is said so where users read of it."""
    found = {name_of(path) for path in SOURCES for name, _ in calls(path) if name.endswith("import_module")}
    assert found == set(IMPORTS_BY_NAME)
    openers = {name_of(path) for path in SOURCES for name, _ in calls(path) if name == "own_reader"}
    assert openers == {"pipeline/datasets/__init__.py"}
    assert "runs code" in (ROOT / "docs/own-data.md").read_text()


def test_the_bundles_strategies_and_kinds_are_a_closed_list() -> None:
    from models.tasks import TASKS

    for table in (SHARING, TASKS):
        assert all(kind.__module__.startswith("models.") for kind in table.values())


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "Xk3SecretOfTheStore",
    "AWS_ACCESS_KEY_ID": "AKIDOfTheStore99",
    "MLFLOW_TRACKING_PASSWORD": "Xk3PasswordOfTracking",
    "RAY_AUTH_TOKEN": "Xk3TokenOfTheCluster",
}
IN_URI = "Xk3PasswordInTheUri"


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("http://user:pass@host:5000/x", "http://host:5000/x"),
        ("http://user:p@ss@host", "http://host"),
        ("s3://KEY:SECRET@bucket/runs?region=x", "s3://bucket/runs?region=x"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("http://h/?access_token=abc&x=1", "http://h/?access_token=...&x=1"),
        ("two: http://a:b@c, s3://d:e@f.", "two: http://c, s3://f."),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_what_is_shown_of_a_uri(uri: str, plain: str) -> None:
    assert shown(uri) == plain


@pytest.mark.slow
@pytest.mark.filterwarnings(DECODING, "ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_no_secret_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All that writes, with keys in the environment and in URIs: a job, its bundle, tracking, messages."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    config = settings()
    from pipeline.machine import Machine
    from pipeline.preparing import open_source

    prepare(tmp_path / "prepared", open_source("tiny", config, Machine()), config)
    job = make_job(read_manifests(tmp_path / "prepared"), ("scene",), **QUIET)
    place = site(tmp_path / "prepared", tmp_path / "jobs")
    records = list(loop.train(job, place))
    loop.conclude(job, place)
    stores = {
        "there": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "away": f"http://user:{IN_URI}@127.0.0.1:9",
        "odd": f"postgresql://user:{IN_URI}@127.0.0.1:9/x?password={IN_URI}",
        "wrong": f"nonsense://user:{IN_URI}@x",
    }
    for name, uri in stores.items():
        where = Where(uri=uri, spool=tmp_path / name, experiment="x")
        with Tracker(where) as tracker:
            run = tracker.run("a", name="a", tags={"stage": "x"}, params=config.model_dump())
            run.log({"loss": records[0].losses["scene"]}, 1)
            run.artifact(tmp_path / "jobs" / "jobs" / job.key)
            run.finish({})
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/machine.yaml").write_text(f"storage: s3://user:{IN_URI}@bucket/runs\n")
    monkeypatch.chdir(tmp_path)  # where the log goes
    with pytest.raises(SystemExit):
        start(lambda: (load_machine(tmp_path / "settings/machine.yaml"), None)[1])
    (tmp_path / "settings/machine.yaml").unlink()
    said = "".join(capfd.readouterr())
    assert "tracking: " in said
    assert "it holds a password" in said
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.name == "mlflow.db" for path in written)
    assert any(path.suffix == ".log" for path in written)
    for secret in (*SECRETS.values(), IN_URI):
        assert secret not in said
        assert not [path for path, data in written.items() if secret.encode() in data]


def listening(pids: set[int]) -> set[str]:
    """The addresses at which processes listen, as the kernel tells them."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and cells[9] in inodes:
                words = bytes.fromhex(cells[1].split(":")[0])
                plain = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                found.add(socket.inet_ntop(family, plain))
    return found


def family(pid: int) -> set[int]:
    """A process and all that it started, directly or not."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def is_loopback(address: str) -> bool:
    return address.removeprefix("::ffff:").startswith("127.") or address == "::1"


RAY = """\
from pipeline.machine import Machine
from pipeline import runner
runner.connect(Machine())
import ray
assert ray.get(ray.remote(lambda: 1).remote()) == 1
print("ready", flush=True)
input()
"""


def server(folder: Path) -> list[str]:
    """The command of `make ui`, on another database and port."""
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "mlflow server" in line]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = line.replace("$(CURDIR)", str(folder)).replace("--port 5000", f"--port {port}").split()
    return [sys.executable, "-m", "mlflow", *words[1:]]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("what", ["ray", "mlflow"])
def test_what_we_start_listens_on_this_machine_alone(what: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RAY] if what == "ray" else server(tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if what == "ray":
                assert b"ready\n" in iter(process.stdout.readline, b"")
            deadline = time.monotonic() + 120
            while not (found := listening(family(process.pid))) and time.monotonic() < deadline:
                time.sleep(0.5)
            assert found
            assert all(map(is_loopback, found)), found
        finally:
            process.terminate() if what == "mlflow" else process.stdin.close()
            process.wait(60)
