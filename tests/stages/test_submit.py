"""`make submit` and `make fetch`: what is refused and sent, and a study that comes back from a real Ray cluster."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config import ROOT
from pipeline.study_folder import StudyFolder
from pipeline.travelling import travelling
from stages import submit, submitted
from tests.ray_nodes import Nodes, ray_nodes, why_not


def cluster_yaml(folder: Path, **changed: Any) -> None:
    settings = {
        "address": "auto",
        "storage": str(folder / "runs"),
        "tracking_uri": f"sqlite:///{folder}/runs/mlflow.db",
        "gpu": False,
        **changed,
    }
    with (folder / "cluster.yaml").open("w") as file:
        YAML().dump({key: value for key, value in settings.items() if value is not None}, file)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's folder with settings and nothing else."""
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "runs").mkdir()
    cluster_yaml(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(submit, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"address": None}, "address: auto"),
        ({"address": "10.0.0.1:6379"}, "address: auto"),
        ({"storage": None}, "storage: missing"),
        ({"storage": "runs"}, "same path on this machine"),
        ({"storage": "/nowhere/at/all"}, "same path on this machine"),
        ({"tracking_uri": None}, "tracking_uri: the address"),
        ({"tracking_uri": "sqlite:///mlflow.db"}, "ends with the job"),
        ({"gpu": None}, "gpu: true or false"),
        ({"wokers": 2}, "Did you mean workers"),
    ],
)
def test_a_cluster_yaml_that_would_lose_something_is_refused(here: Path, changed: dict[str, Any], message: str) -> None:
    cluster_yaml(here, **changed)
    with pytest.raises(ValueError, match=message):
        submit.load_cluster()


@pytest.mark.parametrize(
    "changed",
    [{}, {"storage": "s3://bucket/coppice"}, {"tracking_uri": "http://mlflow:5000"}, {"workers": [2, 8]}],
)
@pytest.mark.usefixtures("here")
def test_a_sound_cluster_yaml(here: Path, changed: dict[str, Any]) -> None:
    cluster_yaml(here, **changed)
    assert submit.load_cluster().address == "auto"


def test_no_cluster_yaml(here: Path) -> None:
    (here / "cluster.yaml").unlink()
    with pytest.raises(ValueError, match=r"no cluster.yaml.*docs/cluster.md"):
        submit.load_cluster()


def test_nothing_to_fetch_yet(here: Path) -> None:
    with pytest.raises(ValueError, match="nothing of scenes is finished yet"):
        submit.fetch(StudyFolder(str(here / "runs"), "scenes"), [])


@pytest.fixture
def told(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in for `ray` writes its arguments, its variables and what it was handed."""
    told = here.parent / f"{here.name}-told"
    stand_in = here.parent / f"{here.name}-ray"
    stand_in.write_text(
        f"#!{sys.executable}\nimport json, os, shutil, sys\nfolder = sys.argv[sys.argv.index('--working-dir') + 1]\n"
        f"shutil.copytree(folder, {str(told)!r})\n"
        f"json.dump([sys.argv[1:], dict(os.environ)], open({str(told / 'said.json')!r}, 'w'))\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(submit, "RAY", str(stand_in))
    return told


def test_what_is_sent(here: Path, told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = StudyFolder(str(here / "runs"), "scenes")
    job = submit.send("http://head:8265", study, [])
    arguments, environment = json.loads((told / "said.json").read_text())
    assert arguments[:5] == ["job", "submit", "--no-wait", "--address", "http://head:8265"]
    assert arguments[arguments.index("--") :] == ["--", "python", "-m", "stages.submitted", "--job", job]
    assert not [word for word in arguments if "runtime-env" in word]
    assert environment["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] == "1"
    assert {path.name for path in told.iterdir()} == {"params.yaml", "machine.yaml", "said.json"}
    assert (told / "machine.yaml").read_text() == (here / "cluster.yaml").read_text()
    assert json.loads(study.notes.read("job") or b"")["job"] == job
    assert "sending 2 files" in capsys.readouterr().out


def test_a_running_study_is_followed_and_a_changed_one_refused(here: Path, told: Path) -> None:
    study = StudyFolder(str(here / "runs"), "scenes")
    submit.send("http://head:8265", study, [])
    arguments, _ = json.loads((told / "said.json").read_text())
    about = json.loads(arguments[arguments.index("--metadata-json") + 1])
    running = {"submission_id": "scenes-1", "status": "RUNNING", "metadata": about}
    assert submit.send("http://head:8265", study, [running]) == "scenes-1"
    with (here / "params.yaml").open("a") as file:
        file.write("\n# another study\n")
    with pytest.raises(ValueError, match=r"scenes-1, with other settings.*ray job stop --address"):
        submit.send("http://head:8265", study, [running])
    shutil.rmtree(told)
    assert submit.send("http://head:8265", study, [{**running, "status": "STOPPED"}]) != "scenes-1"


def test_a_refused_job_shows_what_ray_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "RAY", shutil.which("false"))
    with pytest.raises(ValueError, match="Ray did not take the job"):
        submit.send("http://head:8265", StudyFolder(str(here / "runs"), "scenes"), [])


TWO = """
stages:
  first:
    cmd: mkdir -p artifacts/first && cp said artifacts/first/n
    deps: [said]
    outs: [artifacts/first]
  second:
    cmd: mkdir -p artifacts/second && cp -r artifacts/first/n artifacts/second/n
    deps: [artifacts/first]
    outs: [artifacts/second]
"""


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments, "--quiet"], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def finished(here: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    """A study of two stages that another machine has finished."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    there = here.parent / f"{here.name}-there"
    study = StudyFolder(str(here / "runs"), "scenes")
    for folder, said in ((here, "here"), (there, "there")):
        (folder / ".dvc").mkdir(parents=True)
        (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n")
        (folder / "dvc.yaml").write_text(TWO)
        (folder / "said").write_text(said)
    dvc(there, "repro")
    note = json.dumps({"job": "scenes-7", "contents": "others"}).encode()
    study.keep((there / "dvc.lock").read_bytes(), there / ".dvc/cache", note)
    return study


def left(folder: Path) -> dict[str, str]:
    files = [folder / "dvc.lock", *(folder / "artifacts").rglob("*")]
    return {str(path.relative_to(folder)): path.read_text() for path in files if path.is_file()}


@pytest.mark.slow
def test_results_come_beside_what_is_here(
    here: Path, finished: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    dvc(here, "repro", "first")
    own = left(here)
    with pytest.raises(ValueError, match=r"ONLY=secnd: .*Did you mean second\?"):
        submit.fetch(finished, ["first", "secnd"])
    assert left(here) == own
    submit.fetch(finished, ["second"])
    assert left(here).pop("artifacts/second/n") == "there"
    assert left(here)["artifacts/first/n"] == "here"
    assert set(submit.stages_of((here / "dvc.lock").read_bytes(), "")) == {"first", "second"}
    assert "scenes-7 brought these about, with other sources or settings" in capsys.readouterr().out
    submit.fetch(finished, [])  # what `dvc repro` made here is in DVC's cache, and gives way
    assert left(here)["artifacts/first/n"] == "there"
    assert "not run yet: first" in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_that_nobody_has_a_copy_of_stays(here: Path, finished: StudyFolder) -> None:
    dvc(here, "repro")
    (here / "artifacts/second/mine").write_text("my notes")
    own = left(here)
    with pytest.raises(ValueError, match=r"(?s)artifacts/second/mine.*Move away what is in the way"):
        submit.fetch(finished, [])
    assert left(here) == own
    assert not list(here.glob("dvc.lock.*"))


@pytest.mark.slow
def test_nothing_whole_leaves_all_as_it_is(here: Path, finished: StudyFolder) -> None:
    dvc(here, "repro")
    own = left(here)
    shutil.rmtree(here / "runs/dvc")
    submit.fetch(finished, [])
    assert left(here) == own


@pytest.mark.slow
def test_a_job_begins_with_what_only_storage_has(
    here: Path, finished: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc(here, "repro", "first")
    shutil.rmtree(here / ".dvc/cache")
    monkeypatch.setattr(submitted, "ROOT", here)
    monkeypatch.setattr(submitted, "LOCK", here / "dvc.lock")
    submitted.bring_earlier(finished, here / ".dvc/cache")
    assert left(here)["artifacts/first/n"] == left(here)["artifacts/second/n"] == "there"


def test_a_torn_lock_and_any_trouble_are_outlived(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, study = here / "dvc.lock", StudyFolder(str(here / "runs"), "scenes")
    monkeypatch.setattr(submitted, "LOCK", lock)
    monkeypatch.setattr(submitted, "POLL_SECONDS", 0.02)
    with submitted.keeping(study, here / "cache"):
        lock.write_text("schema: '2.0'\nsta")
        time.sleep(0.3)
        lock.write_text("schema: '2.0'\nstages:\n  a: {cmd: a}\n")
        deadline = time.monotonic() + 20
        while study.lock != lock.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert study.lock == lock.read_bytes()
    assert capsys.readouterr().err.count("not a dvc.lock, or not a whole one") == 1


STOPPED = """\
import signal, sys, time
from pathlib import Path
from pipeline.study_folder import StudyFolder
from stages import submitted
submitted.LOCK = Path(sys.argv[1]) / "dvc.lock"
signal.signal(signal.SIGTERM, submitted._leave)
with submitted.keeping(StudyFolder(sys.argv[1], "a"), Path(sys.argv[1]) / "cache"):
    submitted.LOCK.write_text("schema: '2.0'\\nstages: {}\\n")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_job_that_is_stopped_keeps_what_has_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STOPPED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(30) == 143
    assert StudyFolder(str(tmp_path), "a").lock == (tmp_path / "dvc.lock").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_storage_that_is_away_is_named_without_its_keys(told: Path) -> None:
    study = StudyFolder("s3://me:hush@bucket/x?endpoint_override=127.0.0.1:1&region=r", "a")
    for attempt in (lambda: submit.fetch(study, []), lambda: submit.send("http://head:8265", study, [])):
        with pytest.raises(ValueError, match=r"cluster\.yaml storage s3://bucket/x: ") as error:
            attempt()
        assert "hush" not in str(error.value)
    assert not told.exists()


@pytest.mark.usefixtures("here")
def test_a_job_that_failed_at_once_says_so_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["submit", "--to", "head:8265"])
    for name, value in (("jobs", []), ("send", "scenes-1"), ("follow", "FAILED")):
        monkeypatch.setattr(submit, name, lambda *_, value=value: value)
    with pytest.raises(ValueError, match=r"nothing of .* is finished yet"):
        submit.main()
    assert "the job failed" in capsys.readouterr().err


CHAIN = """
stages:
  sources:
    cmd: mkdir -p artifacts/sources && echo 2 > artifacts/sources/n
    params: [seed]
    outs: [artifacts/sources]
  report:
    cmd: >-
      python -c "import os, ray; from pipeline.config import ROOT;
      from pipeline.machine import load_machine; from pipeline.runner import everywhere;
      (found,) = everywhere(os.path.exists, str(ROOT / 'params.yaml'), load_machine()).values(); assert found;
      assert os.path.exists('ok'); os.makedirs('artifacts/report'); open('artifacts/report/index.html', 'w').write('4')"
    deps: [artifacts/sources]
    outs: [artifacts/report]
"""


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A Ray cluster of one machine that asks for a token, started with this environment's programs on the path."""
    if reason := why_not():
        pytest.skip(reason)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with tempfile.TemporaryDirectory(prefix="ray") as folder, ray_nodes(Path(folder), nodes=1, cpus=1) as nodes:
        yield nodes


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This checkout with a chain of two stages, of which the second wants the cluster and a file that is not there."""
    for path in travelling(ROOT):
        (tmp_path / "here" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tmp_path / "here" / path)
    (tmp_path / "here/dvc.lock").unlink(missing_ok=True)
    (tmp_path / "here/dvc.yaml").write_text(CHAIN)
    (tmp_path / "here/runs").mkdir()
    cluster_yaml(tmp_path / "here")
    return tmp_path / "here"


def run(checkout: Path, head: Nodes, *arguments: str, **changed: str) -> tuple[int, str]:
    done = subprocess.run(
        head.inside(0, [sys.executable, "-m", "stages.submit", "--to", "http://127.0.0.1:8265", *arguments]),
        cwd=checkout,
        env={**head.environment, **changed},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert head.environment["RAY_AUTH_TOKEN"] not in done.stdout
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.faults
def test_a_study_runs_on_a_cluster_and_comes_back(head: Nodes, checkout: Path) -> None:
    code, said = run(checkout, head, RAY_AUTH_MODE="disabled")
    assert (code, "refused a request without a token" in said) == (2, True), said

    code, said = run(checkout, head)  # the second stage fails: the first one's results come back
    assert code == 1, said
    assert "here: sources; not run yet: report" in said
    assert (checkout / "artifacts/sources/n").read_text() == "2\n"

    (checkout / "ok").write_text("")
    code, said = run(checkout, head)
    assert code == 0, said
    assert "finished before: sources" in said
    assert "here: sources, report" in said
    assert (checkout / "artifacts/report/index.html").read_text() == "4"

    lock = (checkout / "dvc.lock").read_bytes()
    code, said = run(checkout, head)
    assert code == 0, said
    assert "nothing to do" in said
    assert (checkout / "dvc.lock").read_bytes() == lock
    # Storage lies in the checkout: these are all files that any of the runs left, here and there.
    left = [path for path in checkout.rglob("*") if path.is_file()]
    assert [path for path in left if path.name == "kept"]
    assert not [path for path in left if head.environment["RAY_AUTH_TOKEN"].encode() in path.read_bytes()]
