"""`python -m stages.repro`: what it says around the stages, and the code that it leaves with."""

import os
from pathlib import Path

import pytest

from pipeline.config import ROOT
from pipeline.dvc_output import INTERRUPTED, Heard
from pipeline.terminal import PLAN_UNTOLD
from stages import repro
from stages.session import VERBOSE, start


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stages/repro.py"])
    monkeypatch.setenv(VERBOSE, "0")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setattr(repro.subprocess, "run", lambda *_, **__: None)
    monkeypatch.setattr(repro, "revision", lambda: "3f2a91c-dirty")
    return tmp_path


def ran(monkeypatch: pytest.MonkeyPatch, heard: Heard) -> int:
    """Run the command on what DVC would say."""
    monkeypatch.setattr(repro, "reproduce", lambda **_: heard)
    try:
        start(repro.main)
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def blocks(said: str) -> dict[str, list[str]]:
    """The lines under each label."""
    found: dict[str, list[str]] = {}
    label = ""
    for line in said.splitlines():
        label = line[:11].strip() or label
        found.setdefault(label, []).append(line[11:])
    return found


def test_a_run_says_what_it_runs_on_what_is_next_and_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = Heard(ran=["sources", "taps", "report"], unchanged=["prepare", "pretrain"], cached=["branched"])
    assert ran(monkeypatch, heard) == 0
    said = blocks(capsys.readouterr().out)
    assert list(said) == ["preflight", "next", "done"]
    assert all(
        part in said["preflight"][0] for part in ("python 3.", "torch 2.", "core", "free", "git 3f2a91c, changed")
    )
    assert said["next"][0].startswith("open artifacts/report/index.html")
    assert any("bin/activate" in line for line in said["next"])
    assert said["done"][0].endswith("stages: 2 run, 1 from DVC's cache, 2 up to date")


def test_a_run_that_found_nothing_to_do_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(monkeypatch, Heard(ran=["sources"], unchanged=["prepare", "report"])) == 0
    said = capsys.readouterr().out
    assert "\nnothing to do: every stage is up to date (" in said
    assert "done " not in said


@pytest.mark.parametrize(
    ("lams", "example"), [("[0.02, 0.1]", "dvc exp run -S 'taps.lams=[0.05]'"), ("[]", "-S 'trees.budgets=[1.5x]'")]
)
def test_what_to_try_next_fits_the_study(
    lams: str, example: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "params.yaml").read_text()
    assert "lams: [0.02, 0.1]" in text
    (here / "params.yaml").write_text(text.replace("lams: [0.02, 0.1]", f"lams: {lams}"))
    ran(monkeypatch, Heard(ran=["sources", "taps"]))
    assert example in capsys.readouterr().out


@pytest.mark.parametrize(
    ("heard", "code", "said"),
    [
        (Heard(failed=("taps", 2), code=255), 2, ""),
        (Heard(failed=("taps", 1), code=255), 1, ""),
        (Heard(failed=("taps", 130), code=255), 130, ""),
        (Heard(code=INTERRUPTED), 130, ""),
        (Heard(code=255), 1, ""),
        (Heard(failed=("taps", 137), code=255), 137, "taps was ended by SIGKILL; did the machine run out of memory?"),
        (Heard(failed=("taps", 139), code=255), 139, "taps was ended by SIGSEGV. "),
    ],
)
def test_it_leaves_with_the_code_of_what_failed(
    heard: Heard, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(monkeypatch, heard) == code
    out, error = capsys.readouterr()
    assert "next" not in out
    assert "done" not in out
    assert error.startswith(f"error: {said}") if said else not error


def test_the_plan_is_untold_while_the_chain_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def reproduce(**_: bool) -> Heard:
        seen.append(Path(os.environ[PLAN_UNTOLD]).is_file())
        return Heard()

    monkeypatch.setattr(repro, "reproduce", reproduce)
    repro.main()
    assert seen == [True]
    assert PLAN_UNTOLD not in os.environ


def test_wrong_settings_are_told_before_anything_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "params.yaml").write_text("seeed: 3\n")
    assert ran(monkeypatch, Heard()) == 2
    out, said = capsys.readouterr()
    assert not out
    assert "seeed" in said
