"""What stands around Ray: reasons in one line, whose Ctrl-C it is, what a job's workers can share."""

import os
import signal
import socket
import threading

import pytest

from pipeline.machine import Machine
from pipeline.ray_environment import keep_to_loopback, meet_at, own_ctrl_c, prepare_environment, reason
from pipeline.runner import _times


class Group(Exception):
    def __init__(self, *said: str) -> None:
        super().__init__("Training failed due to worker errors:")
        self.worker_failures = {rank: RuntimeError(text) for rank, text in enumerate(said)}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a traceback\n\n  ValueError: the reason\n"), "ValueError: the reason"),
        (ValueError(), "ValueError"),
        (Group("Traceback\nConnection closed by peer", "Traceback\nOSError: disk"), "OSError: disk"),
        (Group("Gloo: timed out", "NCCL: timed out"), "Gloo: timed out"),
    ],
)
def test_the_reason_is_one_line_of_the_rank_that_failed(error: Exception, text: str) -> None:
    assert reason(error) == text


def test_ctrl_c_is_ctrl_c_again() -> None:
    """Whatever handler the block leaves behind, and though it ends as a finished program would."""
    before = signal.getsignal(signal.SIGINT)

    def interrupted() -> None:
        with own_ctrl_c():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise SystemExit(0)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_leave_signals_alone() -> None:
    ended = []

    def work() -> None:
        with own_ctrl_c():
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith(("RAY_", "TUNE_", "GLOO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return monkeypatch


def test_loopback_is_for_a_cluster_of_our_own(bare: pytest.MonkeyPatch) -> None:
    keep_to_loopback(Machine(address="10.0.0.1:6379"))
    bare.setitem(os.environ, "RAY_ADDRESS", "10.0.0.1:6379")
    keep_to_loopback(Machine())
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
    bare.delitem(os.environ, "RAY_ADDRESS")
    keep_to_loopback(Machine())
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"


@pytest.mark.usefixtures("bare")
def test_the_last_machine_says_what_stuck_means() -> None:
    for seconds in (600, 20):
        prepare_environment(Machine(stuck_seconds=seconds))
        assert os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] == str(seconds)


@pytest.mark.usefixtures("bare")
def test_gloo_meets_at_the_machines_own_address() -> None:
    meet_at("203.0.113.1")
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    meet_at("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] in {name for _, name in socket.if_nameindex()}


@pytest.mark.parametrize(
    ("need", "there", "fits"), [(1.0, 8.0, 8), (2.0, 7.0, 3), (0.4, 8.0, 16), (0.3, 1.0, 3), (1, 0, 0)]
)
def test_a_part_of_a_gpu_lies_on_one(need: float, there: float, fits: int) -> None:
    assert _times(need, there) == fits
