"""This machine in words: processor, cores, accelerators. Nothing heavy is imported, no driver is loaded."""

import os
import platform
import re
from pathlib import Path

CPUINFO, GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")


def hardware() -> str:
    """Map this machine to one line such as `AMD EPYC 7B13, 16 cores, 2 × NVIDIA H100`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    names = sorted(_field(path, r"^Model:\s*(.+)$") for path in GPUS.glob("*/information"))
    gpus = [f"{names.count(name)} × {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    cpu = _field(CPUINFO, r"^model name\s*:\s*(.+)$") or platform.processor() or platform.machine()
    return ", ".join([cpu, f"{cores} core{'s' * (cores != 1)}", *gpus])


def _field(path: Path, pattern: str) -> str:
    """The first match in a file of the system; empty where there is no such file."""
    try:
        found = re.search(pattern, path.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""
