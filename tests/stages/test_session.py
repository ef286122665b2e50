"""How commands end: what the terminal shows, what the log keeps, the code that is left with."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from pipeline import run_log
from pipeline.config import ROOT
from pipeline.run_log import log_folder
from pipeline.terminal import at_terminal, passing
from stages import session
from stages.session import VERBOSE, start
from tests.pipeline.terminal_rows import rows_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, a command's name, and nothing that asks for more than the plain output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stages/train_all.py"])
    monkeypatch.setenv(VERBOSE, "0")
    monkeypatch.delenv("COPPICE_TERMINAL", raising=False)
    monkeypatch.setattr(run_log, "log_folder", log_folder)
    return tmp_path


def logs(folder: Path) -> list[Path]:
    return sorted(folder.glob("runs/logs/*.log"))


def code_of(main: Callable[[], None], **settings: bool) -> int:
    with pytest.raises(SystemExit) as left:
        start(main, **settings)
    assert isinstance(left.value.code, int)
    return left.value.code


def wrong() -> None:
    raise ValueError("params.yaml:3 seed: -1 is too small")


def broken() -> None:
    print("before it broke")
    {}["what nobody thought of"]


def stopped() -> None:
    raise KeyboardInterrupt


def test_an_error_of_the_user_s_is_its_message_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(wrong) == 2
    assert capsys.readouterr() == ("", "error: params.yaml:3 seed: -1 is too small\n")
    (log,) = logs(here)
    assert "Traceback" in log.read_text()
    assert "in wrong" in log.read_text()


def test_an_unexpected_error_is_one_line_with_its_place_and_log(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(broken) == 1
    out, said = capsys.readouterr()
    (log,) = logs(here)
    assert out == "before it broke\n"
    assert said.count("\n") == 1
    assert "KeyError: 'what nobody thought of'" in said
    assert f"tests/stages/test_session.py:{broken.__code__.co_firstlineno + 2};" in said
    assert str(log) in said
    assert "-v" in said
    kept = log.read_text()
    assert log.name.startswith("train_all-")
    assert all(part in kept for part in ("stages/train_all.py", "torch", "before it broke\n", "Traceback", said))


def test_where_it_broke_is_our_own_line_not_a_library_s(capsys: pytest.CaptureFixture[str]) -> None:
    def read() -> None:
        Path("nowhere").read_text()

    assert code_of(read) == 1
    assert "FileNotFoundError" in (said := capsys.readouterr().err)
    assert f"at tests/stages/test_session.py:{read.__code__.co_firstlineno + 1};" in said


@pytest.mark.parametrize("ask", ["-v", "--verbose", VERBOSE])
@pytest.mark.parametrize("main", [wrong, broken])
def test_verbose_shows_the_traceback(
    ask: str, main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if ask == VERBOSE:
        monkeypatch.setenv(VERBOSE, "1")
    else:
        monkeypatch.setattr("sys.argv", ["stages/train_all.py", "one", ask, "two"])
    seen: list[str] = []

    def run() -> None:
        seen.extend(sys.argv[1:])
        main()

    code_of(run)
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "error: " in said.splitlines()[-1]
    assert seen == ([] if ask == VERBOSE else ["one", "two"]), "commands know nothing of the flag"
    assert os.environ[VERBOSE] == "1", "and the stages of `make repro` find it"


def test_garbage_is_collected_rarely_while_a_stage_is_imported_and_as_ever_in_its_main() -> None:
    seen = "import gc; usual = gc.get_threshold(); import stages.session as s; rare = gc.get_threshold(); "
    seen += "s.start(lambda: print(usual[0] < rare[0], usual == gc.get_threshold()))"
    assert subprocess.check_output([sys.executable, "-c", seen], text=True, cwd=ROOT).strip() == "True True"


def test_it_is_collected_as_ever_in_the_processes_that_a_stage_starts(here: Path) -> None:
    program = here / "program.py"
    program.write_text(
        "import gc\nusual = gc.get_threshold()\nimport stages\nfrom multiprocessing import get_context\n"
        "def seen():\n    print(gc.get_threshold() == usual, flush=True)\n"
        "if __name__ == '__main__':\n    seen()\n    child = get_context('spawn').Process(target=seen)\n"
        "    child.start()\n    child.join()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.check_output([sys.executable, str(program)], text=True, env=environment)
    assert said.split() == ["False", "True"]


def test_ctrl_c_is_130_and_no_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(stopped) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert not logs(here)


def test_a_main_s_own_code_is_kept() -> None:
    assert code_of(lambda: sys.exit(7)) == 7
    start(lambda: None)


def test_what_went_well_leaves_a_log_only_where_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(lambda: print("all well"))
    assert not logs(here)
    start(lambda: print("all well"), logged=True)
    (log,) = logs(here)
    assert log.read_text().endswith("\nall well\n")
    assert capsys.readouterr().out == "all well\n" * 2


def test_the_log_lies_beside_the_checkpoints(here: Path) -> None:
    (here / "machine.yaml").write_text("storage: kept/here\n")
    start(lambda: None, logged=True)
    assert list((here / "kept/here/logs").glob("*.log"))


def test_with_a_wrong_machine_yaml_there_is_still_a_log(here: Path) -> None:
    (here / "machine.yaml").write_text("storaje: here\n")
    assert code_of(wrong) == 2
    assert logs(here)


def test_without_room_for_a_log_all_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "runs").write_text("a file where the folder should be")
    start(lambda: print("all well"), logged=True)
    assert code_of(broken) == 1
    out, said = capsys.readouterr()
    assert out == "all well\nbefore it broke\n"
    assert "KeyError" in said


def test_the_newest_logs_are_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "runs/logs"
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"old-{number}.log").touch()
        os.utime(folder / f"old-{number}.log", (number, number))
    monkeypatch.setattr(run_log, "KEPT", 3)
    start(lambda: None, logged=True)
    assert [path.name for path in logs(here)[:2]] == ["old-2.log", "old-3.log"]
    assert len(logs(here)) == 3


def test_a_password_in_an_error_is_neither_shown_nor_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise ValueError("http://me:hunter22@tracking.lab refused this")

    code_of(refused)
    assert "hunter22" not in capsys.readouterr().err + logs(here)[0].read_text()


def test_in_a_pipe_passing_lines_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        passing("1 of 2")
        print("a result")
        passing("2 of 2")

    start(main)
    assert capsys.readouterr().out == "1 of 2\na result\n2 of 2\n"


PROGRAM = """
import sys, warnings
from pipeline.terminal import passing
from stages.session import start
def main():
    passing("1 of 3"); print("the first result"); passing("2 of 3"); passing("3 of 3, " + "long " * 50)
    print("a warning", file=sys.stderr); passing("4"); raise KeyError("x")
start(main, logged=True)
"""


def test_in_a_terminal_passing_lines_give_way_to_results_and_errors(here: Path) -> None:
    host, guest = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=guest, stderr=guest, env=environment, check=False)
    os.close(guest)
    shown = os.read(host, 1 << 16).decode()
    assert done.returncode == 1
    assert [row.strip() for row in rows_of(shown) if row.strip()][:2] == ["the first result", "a warning"]
    assert rows_of(shown)[2].startswith("error: unexpected KeyError: 'x'")
    assert "1 of 3" in shown, "it was there for a while"
    (long,) = [part.removesuffix("\x1b[K") for part in shown.split("\r") if "long" in part]
    assert len(long) == 79, "longer than a row it could not be erased"
    kept = logs(here)[0].read_text()
    assert "1 of 3\nthe first result\n2 of 3\n" in kept
    assert "\x1b" not in kept
    assert "\r" not in kept


@pytest.mark.parametrize(("term", "shown"), [("xterm", True), ("dumb", False)])
def test_a_stage_of_repro_is_told_of_the_terminal(term: str, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPPICE_TERMINAL", "1")
    monkeypatch.setenv("TERM", term)
    assert at_terminal() == shown


def test_a_session_ends_with_its_results_and_their_time(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for name in ("Tracker", "describe_stage", "record_stage"):
        monkeypatch.setattr(session, name, MagicMock())
    with session.session("trees") as at:
        at.result("3 trees\n{a b}")
        at.say("on the way")
        at.result("at the end")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "trees      on the way"
    assert said[1].startswith("trees      3 trees    ")
    assert said[1].endswith(" s")
    assert len(said[1]) == 100
    assert said[2:] == ["           {a b}", "           at the end"]
