"""The whole chain on one command.    python -m stages.repro [--preset NAME --root FOLDER]    (what `make repro` runs)

With a preset its settings become params.yaml and the data set's folder goes to machine.yaml; then `dvc repro` runs what
is out of date. Results of earlier settings stay in DVC's cache: going back to them runs nothing anew.
"""

import argparse
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pipeline.config import ROOT, Machine, load, load_machine
from pipeline.presets import adopt_preset
from stages.session import start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.repro", description="Run the whole chain.")
    parser.add_argument("--preset", help="a file of presets/, without .yaml")
    parser.add_argument("--root", type=Path, help="the folder of the preset's data set")
    arguments = parser.parse_args()
    if arguments.preset:
        print(adopt_preset(arguments.preset, arguments.root))
    elif arguments.root:
        raise ValueError("--root says where a preset's data lie: give --preset too")
    load()
    machine = load_machine()
    began = time.monotonic()
    lock = ROOT / "dvc.lock"
    before = lock.read_bytes() if lock.exists() else b""
    if not (ROOT / ".git").exists():
        subprocess.run(["dvc", "config", "--local", "core.no_scm", "true"], cwd=ROOT, check=True)
    with _cluster(machine):
        done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    if lock.exists() and lock.read_bytes() == before:
        print(f"nothing to do: every stage is up to date ({time.monotonic() - began:.0f} s)")
    print(f"report: {ROOT / 'artifacts/report/index.html'}\nruns:   make ui")


def _cluster(machine: Machine) -> AbstractContextManager[None]:
    """One cluster for all stages, where machine.yaml asks for one."""
    if not machine.clustered:
        return nullcontext()
    from pipeline.runner import kept_cluster  # brings torch and Ray, which a study in this process starts without

    return kept_cluster(machine)


if __name__ == "__main__":
    start(main)
