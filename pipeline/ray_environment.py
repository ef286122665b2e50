"""What Ray takes from the environment, what of the checkout it is sent, and what its workers set first."""

import fcntl
import os
import socket
import struct
from pathlib import Path

from pipeline.config import Machine

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
# What a driver sends: the program. Results, environments and version control stay where they are.
EXCLUDED = ["/artifacts", "/runs", "/.venv", "/.git", "/.dvc", "/tests", "/mlartifacts", "*.db", "__pycache__"]


def prepare_environment(machine: Machine) -> None:
    """Set what Ray reads when it is first imported; what the user has set stays.

    No telemetry, no noise, tokens where there are some, and loopback for a cluster of our own.
    """
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune's table and hints, where the stage's own lines stand
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the stage, as everywhere
        "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "",  # what is sent is ours to say, without a warning for each
    }
    if machine.address is None and "RAY_ADDRESS" not in os.environ:
        # Ray's own switch, off by default on macOS: its processes would listen on every interface otherwise.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    elif any(name in os.environ for name in TOKENS) or (Path.home() / ".ray" / "auth_token").exists():
        settings["RAY_AUTH_MODE"] = "token"
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(machine.stuck_seconds)


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
