"""Around Ray: what it reads from the environment, what of the checkout it is sent, its errors, and Ctrl-C."""

import fcntl
import os
import re
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.machine import Machine

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
REFUSED = re.compile(r"unauthenticated|unauthorized|token", re.IGNORECASE)
TOO_LARGE = "exceeds the maximum size"
CONNECTION = re.compile(r"connection|gloo|nccl", re.IGNORECASE)
# What a driver sends: the program. Results, environments and version control stay where they are.
EXCLUDED = ["/artifacts", "/runs", "/.venv", "/.git", "/.dvc", "/tests", "/mlartifacts", "*.db", "__pycache__"]


def prepare_environment(machine: Machine) -> None:
    """Set what Ray reads when it is first imported: no telemetry, no noise, tokens where there are some.

    What the user has set stays, but for what machine.yaml says.
    """
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune's table and hints, where the stage's own lines stand
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the stage, as everywhere
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # then an elastic job takes what is left of a cluster
        "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "",  # what is sent is ours to say, without a warning for each
    }
    if any(name in os.environ for name in TOKENS) or (Path.home() / ".ray" / "auth_token").exists():
        settings["RAY_AUTH_MODE"] = "token"
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(machine.stuck_seconds)


def keep_to_loopback(machine: Machine) -> None:
    """Have a cluster that this process starts listen on 127.0.0.1 alone; one that is there already is left as it is."""
    if machine.address is None and "RAY_ADDRESS" not in os.environ:
        # Ray's own switch, off by default on macOS: its processes would listen on every interface otherwise.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def meet_at(address: str) -> None:
    """Make gloo use the network interface that has this machine's address in the cluster.

    It asks what the host's name means otherwise, which many a machine answers with 127.0.0.1.
    """
    for _, name in socket.if_nameindex():
        if _address_of(name) == address:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _address_of(interface: str) -> str | None:
    """An interface's IPv4 address, as Linux tells it (SIOCGIFADDR of netdevice(7)); None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


@contextmanager
def own_ctrl_c() -> Iterator[None]:
    """Keep Ctrl-C what it is elsewhere: Ray Train's own handler ends the process as if all were done, and stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, before)


def not_connected(machine: Machine, error: Exception) -> str:
    """Ray's error on joining or starting a cluster -> what was tried, why it failed, what to do."""
    why = str(error).strip().partition("\n")[0] or type(error).__name__
    if machine.address is None and (kept := os.environ.get("RAY_ADDRESS")):
        return f"the cluster at {kept} does not answer any more ({why}); the same command goes on from here"
    if machine.address is None:
        load, cores = os.getloadavg()[0], os.cpu_count()
        return (
            f"Ray could not start a cluster on this machine ({why}; load {load:.1f} on {cores} cores). machine.yaml"
            " asks for one by jobs or workers: set jobs: 1 and workers: 0, and networks train in this process"
        )
    where = f"machine.yaml address {machine.address}"
    if type(error).__name__ == "AuthenticationError" or REFUSED.search(why):
        return (
            f"{where}: the Ray cluster refuses this machine's token ({why}). Set RAY_AUTH_MODE=token and"
            " RAY_AUTH_TOKEN_PATH to a file with the cluster's token, see docs/cluster.md#token"
        )
    if TOO_LARGE in why:
        return (
            f"{where}: {why}. That is this folder, without results and environments: name data and whatever else the"
            " cluster needs not in .gitignore, or move it out of here"
        )
    return (
        f"{where}: no Ray cluster answers, or it refuses this machine's token ({why}). Is Ray running there (ray"
        " status)? Is RAY_AUTH_TOKEN_PATH the cluster's token? See docs/cluster.md#token"
    )


def reason(error: BaseException) -> str:
    """The one line that says why: the end of what Ray wraps in tracebacks of several processes."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    said = [_last_line(failure) for failure in failures.values()]
    # Where one rank fails the others lose their connection to it.
    return next((line for line in said if not CONNECTION.search(line)), said[0])


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
