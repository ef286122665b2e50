"""Ray nodes on this machine, each with a network namespace and an address of its own, to be killed at will."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(20),
    "OMP_NUM_THREADS": "1",
}
RAY = Path(sys.executable).with_name("ray")


def why_not() -> str:
    """Why no namespace can be made here; empty where they can."""
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    if _call("ip", "netns", "add", f"cop{os.getpid()}").returncode:
        return "network namespaces need root"
    _call("ip", "netns", "del", f"cop{os.getpid()}")
    return ""


@dataclass
class Nodes:
    """A cluster: node 0 is the head, and drivers run beside it."""

    folder: Path
    cpus: int
    names: list[str] = field(default_factory=list)

    def address(self, node: int) -> str:
        return f"10.{77 + os.getpid() // 250 % 100}.{os.getpid() % 250}.{node + 2}"

    @property
    def cluster(self) -> str:
        return f"{self.address(0)}:6379"

    def start(self, node: int) -> None:
        """Start a node's Ray, in its namespace; one that was killed comes back."""
        if node >= len(self.names):
            self._plug_in(node)
        place = ["--head", "--port=6379", f"--temp-dir={self.folder}"] if node == 0 else [f"--address={self.cluster}"]
        sizes = [f"--num-cpus={self.cpus}", "--object-store-memory=100000000"]
        command = [RAY, "start", *place, *sizes, f"--node-ip-address={self.address(node)}", "--disable-usage-stats"]
        with (self.folder / f"node{node}.log").open("ab") as log:
            subprocess.run(self.inside(node, command), env=self.environment, stdout=log, stderr=log, check=True)

    def inside(self, node: int, command: Sequence[object]) -> list[str]:
        """A command as it is given to run it in a node's namespace."""
        return ["ip", "netns", "exec", self.names[node], *map(str, command)]

    @property
    def environment(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}  # a local cluster's
        return {**own, **ENVIRONMENT}

    def processes(self, node: int, title: str = "") -> list[int]:
        """The processes in a node's namespace whose command line holds `title`."""
        listed = _call("ip", "netns", "pids", self.names[node]).stdout.split()
        return [int(pid) for pid in listed if title in _command_line(int(pid))]

    def kill(self, node: int) -> None:
        """End all that runs on a node, at once: what a power cut does."""
        while processes := self.processes(node):
            for pid in processes:
                _kill(pid)
            time.sleep(0.1)

    def _plug_in(self, node: int) -> None:
        name, pair = f"cop{os.getpid()}n{node}", f"cp{os.getpid()}n{node}"
        self.names.append(name)
        _must("ip", "netns", "add", name)
        _must("ip", "link", "add", pair, "type", "veth", "peer", "name", "eth0", "netns", name)
        _must("ip", "link", "set", pair, "master", self.bridge, "up")
        _must("ip", "-n", name, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
        _must("ip", "-n", name, "link", "set", "eth0", "up")
        _must("ip", "-n", name, "link", "set", "lo", "up")

    @property
    def bridge(self) -> str:
        return f"cpb{os.getpid()}"


@contextmanager
def ray_nodes(folder: Path, *, nodes: int, cpus: int) -> Iterator[Nodes]:
    """A cluster of so many nodes, each with so many CPUs to give away; nothing of it is left afterwards."""
    made = Nodes(folder, cpus)
    _must("ip", "link", "add", made.bridge, "type", "bridge")
    _must("ip", "link", "set", made.bridge, "up")
    try:
        for node in range(nodes):
            made.start(node)
        yield made
    finally:
        for node, name in enumerate(made.names):
            made.kill(node)
            _call("ip", "netns", "del", name)
        _call("ip", "link", "del", made.bridge)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _must(*command: str) -> None:
    done = _call(*command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
