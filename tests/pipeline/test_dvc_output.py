"""What comes through of `dvc repro`, with the DVC that is installed."""

import io
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import dvc_output
from pipeline.config import ROOT
from pipeline.dvc_output import Heard, pieces, reproduce
from pipeline.terminal import ERASE
from tests.pipeline.terminal_rows import rows_of

CHAIN = """stages:
  sources: {cmd: python -m stages.sources, always_changed: true}
  first: {cmd: python -m stages.first, params: [lr], outs: [one.txt]}
  second: {cmd: python -m stages.second, deps: [one.txt], outs: [two.txt]}
"""
SAYS = "print('{0}     a result', flush=True)\nimport sys\nprint('a warning of {0}', file=sys.stderr)\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chain of three stages in a folder without git."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (tmp_path / "dvc.yaml").write_text(CHAIN)
    (tmp_path / "params.yaml").write_text("lr: 1\n")
    (tmp_path / "stages").mkdir()
    for stage, out in (("sources", ""), ("first", "one.txt"), ("second", "two.txt")):
        wrote = f"open({out!r}, 'w').write(open('params.yaml').read())\n" if out else ""
        (tmp_path / f"stages/{stage}.py").write_text(SAYS.format(stage) + wrote)
    monkeypatch.setattr(dvc_output, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("COPPICE_TERMINAL", raising=False)
    return tmp_path


@pytest.mark.slow
def test_only_the_stages_own_lines_come_through(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    heard = reproduce()
    assert heard == Heard(ran=["sources", "first", "second"])
    every = ("sources", "first", "second")
    assert capfd.readouterr() == (
        "".join(f"{stage}     a result\n" for stage in every),
        "".join(f"a warning of {stage}\n" for stage in every),
    )
    heard = reproduce()
    assert heard == Heard(ran=["sources"], unchanged=["first", "second"])
    assert capfd.readouterr().out == "sources     a result\n"
    (project / "params.yaml").write_text("lr: 2\n")
    assert reproduce().ran == ["sources", "first", "second"]
    (project / "params.yaml").write_text("lr: 1\n")
    assert reproduce().cached == ["first", "second"], "earlier results come back from DVC's cache"
    capfd.readouterr()
    reproduce(verbose=True)
    assert "didn't change, skipping" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("code", [2, 1, 130])
def test_a_stage_s_failure_is_known_by_its_code_and_not_said_twice(
    code: int, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "stages/first.py").write_text(
        f"import sys\nprint('error: what is wrong', file=sys.stderr)\nsys.exit({code})"
    )
    heard = reproduce()
    assert heard.failed == ("first", code)
    assert heard.code
    assert capfd.readouterr().err == "a warning of sources\nerror: what is wrong\n"


SHELLS = [pytest.param(path, id=name) for name in ("sh", "bash", "dash", "zsh") if (path := shutil.which(name))]


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_a_killed_stage_is_known_by_its_signal(shell: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", shell)
    (project / "stages/first.py").write_text("import os\nos.kill(os.getpid(), 9)")
    assert reproduce().failed == ("first", 137)


@pytest.mark.slow
def test_dvc_s_own_errors_come_through(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "dvc.yaml").write_text("stages: 3\n")
    heard = reproduce()
    assert heard.failed is None
    assert heard.code
    assert "validation failed" in capfd.readouterr().err


WAITS = """
import time
print("at work", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    print("put away", flush=True)
    raise SystemExit(130)
"""
CALL = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pipeline import dvc_output
dvc_output.ROOT = Path.cwd()
print(dvc_output.reproduce().failed)
"""


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_ctrl_c_ends_the_stage_which_is_waited_for(shell: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", shell)
    (project / "stages/first.py").write_text(WAITS)
    command = [sys.executable, "-P", "-c", CALL, str(ROOT)]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True, start_new_session=True) as chain:
        assert chain.stdout
        said = [chain.stdout.readline() for _ in range(2)]
        assert said[-1] == "at work\n"
        time.sleep(0.2)
        os.killpg(chain.pid, signal.SIGINT)
        assert chain.stdout.read() == "put away\n('first', 130)\n"


TELLS = """
import os, sys
assert os.environ["COPPICE_TERMINAL"] == "1"
for epoch in (1, 2):
    print(f"\\repoch {epoch} of 2\x1b[K", end="", flush=True)
print("a warning", file=sys.stderr, flush=True)
print("\\repoch 3 of 3\x1b[K", end="", flush=True)
open("one.txt", "w").write("x")
"""
SHOW = (
    CALL.replace("print(dvc_output.reproduce().failed)", "")
    + """
from pipeline.terminal import screen
with screen(lambda _: None):
    dvc_output.reproduce()
"""
)


@pytest.mark.slow
def test_in_a_terminal_nothing_is_left_of_passing_lines(project: Path) -> None:
    (project / "stages/first.py").write_text(TELLS)
    host, guest = pty.openpty()
    environment = os.environ | {"TERM": "xterm"}
    command = [sys.executable, "-P", "-c", SHOW, str(ROOT)]
    subprocess.run(command, cwd=project, stdout=guest, stderr=guest, env=environment, check=True)
    os.close(guest)
    shown = os.read(host, 1 << 16).decode()
    kept = ["sources     a result", "second     a result", "a warning of sources", "a warning", "a warning of second"]
    assert sorted(row for row in rows_of(shown) if row) == sorted(kept)
    assert "epoch 2 of 2" in shown, "it was there for a while"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["one\ntwo\n"], ["one\n", "two\n"]),
        (["o", "ne\ntw", "o"], ["one\n", "two"]),
        ([f"\r1 of 2{ERASE}"], [f"\r1 of 2{ERASE}"]),
        (["\r1 of", f" 2{ERASE}", f"\r{ERASE}done\n"], [f"\r1 of 2{ERASE}", f"\r{ERASE}", "done\n"]),
        ([f"\r1{ERASE}\r2{ERASE}Running stage 'taps':\n"], [f"\r1{ERASE}\r2{ERASE}", "Running stage 'taps':\n"]),
        (["Δ é\n".encode()[:1], "Δ é\n".encode()[1:]], ["Δ é\n"]),
    ],
)
def test_lines_and_passing_lines_are_cut_where_they_end(written: list[str | bytes], expected: list[str]) -> None:
    given = [part.encode() if isinstance(part, str) else part for part in written]
    assert list(pieces(io.BufferedReader(Parts(given)))) == expected


class Parts(io.RawIOBase):
    """A stream that gives what is there part by part, as a pipe does."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = iter(parts)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = next(self._parts, b"")
        buffer[: len(part)] = part
        return len(part)
