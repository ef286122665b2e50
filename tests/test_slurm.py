"""deploy/slurm.sh as Slurm runs and stops it, with stand-ins that write down when Ray and the chain end."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import ROOT

# By name: what stands in for a program. The script runs them in the checkout's folder, where `calls` is.
STAND_INS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'echo "scontrol $1" >> calls; [ "$1" = requeue ] || printf "node0\\nnode1\\n"',
    "hostname": "echo 10.0.0.1",
    "ray": "trap 'echo \"ray ends\" >> calls; exit 0' TERM; echo ray >> calls; while :; do sleep 0.1; done",
    "python": "if [[ $* == *repro* ]]; then exec chain; elif [[ $* == *token_hex* ]]; then echo key; else echo 2; fi",
    "chain": "trap 'sleep 1; echo \"chain ends\" >> calls; exit' TERM; echo chain >> calls; while sleep .1; do :; done",
}

pytestmark = pytest.mark.skipif(shutil.which("setsid") is None, reason="no setsid here")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name, script in STAND_INS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "calls").touch()
    return tmp_path


@pytest.fixture
def script(checkout: Path) -> Iterator[subprocess.Popen]:
    """The script, with the chain at work."""
    given = {"SLURM_SUBMIT_DIR": str(checkout), "SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node[0-1]"}
    started = subprocess.Popen([ROOT / "deploy/slurm.sh"], env=os.environ | given, cwd=checkout)
    try:
        wait_for(checkout, "chain")
        yield started
    finally:
        started.terminate()
        started.wait(30)


def calls(checkout: Path) -> list[str]:
    return (checkout / "calls").read_text().splitlines()


def wait_for(checkout: Path, call: str) -> None:
    deadline = time.monotonic() + 30
    while call not in calls(checkout):
        assert time.monotonic() < deadline, calls(checkout)
        time.sleep(0.05)


def test_out_of_time_it_is_queued_again_once_all_has_ended(checkout: Path, script: subprocess.Popen) -> None:
    assert list(checkout.glob(".ray-42-*/token"))
    script.send_signal(signal.SIGUSR1)
    assert script.wait(30) == 143
    assert calls(checkout)[-4:] == ["chain ends", "ray ends", "ray ends", "scontrol requeue"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda number: number.name)
def test_told_to_stop_twice_it_leaves_no_token(
    checkout: Path, script: subprocess.Popen, second: signal.Signals
) -> None:
    script.send_signal(signal.SIGTERM)
    time.sleep(0.3)  # the chain takes a second to end
    script.send_signal(second)
    assert script.wait(30) == 143
    assert not list(checkout.glob(".ray-*"))
    assert calls(checkout)[-3:] == ["chain ends", "ray ends", "ray ends"], "cancelled, so not queued again"


def test_its_log_is_where_slurm_can_make_it() -> None:
    settings = (ROOT / "deploy/slurm.sh").read_text().split("set -euo")[0]
    output = settings.partition("--output=")[2].split()[0]
    assert "/" not in output, "Slurm makes no folders"
    ignored = subprocess.run(["git", "check-ignore", "--quiet", output.replace("%j", "42")], cwd=ROOT, check=False)
    assert ignored.returncode in (0, 128)  # 128: no git checkout
