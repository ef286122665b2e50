"""All benchmarks -> benchmarks/RESULTS.md: what we claim to be fast, beside what one would use instead.

`python -m benchmarks` runs each in a process of its own and keeps its lines in benchmarks/measured, of which the table
is written, whichever machine they come from; the same command goes on after the last one that ended, since runs/bench
tells which did. `python -m benchmarks taps moe` runs those two, again if they were run before. Copy a GPU machine's
benchmarks/measured/gpu beside this one's.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.lines import KEPT, note
from benchmarks.results import written
from pipeline.config import ROOT
from pipeline.hardware import hardware

ROWS = {
    1: "The training loop",
    2: "A TAPS step",
    3: "A merged TAPS network",
    4: "N tasks in inference",
    5: "A layer of experts",
    6: "RSA",
    7: "The tree search",
    8: "Loading and preparing",
    9: "Data parallel with changing heads",
    10: "The whole chain",
    11: "Many jobs",
    12: "Start-up",
    13: "How it grows",
}
BENCHMARKS = (
    "start",
    "taps",
    "merged",
    "moe",
    "rsa",
    "trees",
    "branched",
    "loop",
    "loading",
    "preparing",
    "changing_heads",
    "scaling",
    "many_jobs",
    "chain",
)
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "numba", "rsatoolbox", "pyarrow", "ray", "dvc", "mlflow")
RESULTS, MEASURED, ENDED = ROOT / "benchmarks/RESULTS.md", ROOT / "benchmarks/measured", ROOT / "runs/bench"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[[], *BENCHMARKS], help="those to run; all that are missing if none"
    )
    names = parser.parse_args().names
    device = "gpu" if torch.cuda.is_available() else "cpu"
    kept, ended = MEASURED / device, ENDED / device
    for folder in (kept, ended):
        folder.mkdir(parents=True, exist_ok=True)
    left = names or [name for name in BENCHMARKS if not (ended / name).exists()]
    failed = [name for name in left if not _run(name, kept, ended)]
    RESULTS.write_text(written([json.loads(path.read_text()) for path in _in_order()], ROWS))
    note(f"{RESULTS} is written; `python -m benchmarks NAME` measures one again")
    if failed:
        sys.exit(f"error: {', '.join(failed)} ended in an error; nothing of it is in the table")


def _in_order() -> Sequence[Path]:
    paths = [folder / f"{name}.json" for folder in sorted(MEASURED.iterdir()) for name in BENCHMARKS]
    return [path for path in paths if path.exists()]


def _run(name: str, kept: Path, ended: Path) -> bool:
    """Run one benchmark; keep its lines and on what they were measured in one folder, and in another that it ended."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    note(f"\n{' '.join(['python', *command[1:]])}")
    draft, began, load = ended / f"{name}.draft", time.monotonic(), os.getloadavg()[0]
    if subprocess.run(command, cwd=ROOT, env={**os.environ, KEPT: str(draft)}, check=False).returncode:
        return False
    title = (import_module(f"benchmarks.{name}").__doc__ or "").split("    python -m")[0].strip()
    record = {
        "name": name,
        "title": title,
        "command": f"python -m benchmarks.{name}",
        "seconds": time.monotonic() - began,
        "load": load,
        "date": time.strftime("%Y-%m-%d"),
        "revision": _revision(),
        "machine": hardware(),
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
        "lines": json.loads(draft.read_text()),
    }
    (kept / f"{name}.json").write_text(json.dumps(record, indent=1))
    draft.rename(ended / name)
    return True


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _revision() -> str:
    """The commit that was measured, with a + where files were changed since; empty where there is no git."""
    asked = (["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changed = (subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True) for ask in asked)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + "+" * bool(changed.stdout.strip())


if __name__ == "__main__":
    main()
