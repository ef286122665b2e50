"""What a study would take, without preparing or training.    python -m stages.plan [--preset NAME --root FOLDER]

What `make plan` runs, in seconds: checks settings against the data on this disk and prints data sets, networks, the
jobs of every stage, and an estimate of time and disk. A preset is read, not adopted; nothing is written. Leaves with 2
where something must be mended first.
"""

import argparse
import sys
from pathlib import Path

from pipeline.config import load
from pipeline.machine import load_machine
from pipeline.planning import plan
from pipeline.presets import preset_path, roots_below
from stages.session import start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.plan", description="What a study would take.")
    parser.add_argument("--preset", help="a file of presets/, without .yaml; by default this folder's params.yaml")
    parser.add_argument("--root", type=Path, help="the folder of the preset's data sets")
    parser.add_argument("--no-timing", action="store_true", help="do not measure this machine's speed")
    arguments = parser.parse_args()
    if arguments.root and not arguments.preset:
        raise ValueError("--root says where a preset's data lie: give --preset too")
    config, machine = load(preset_path(arguments.preset) if arguments.preset else "params.yaml"), load_machine()
    if arguments.root:
        machine = machine.model_copy(update={"roots": roots_below(arguments.root, config)})
    found = plan(config, machine, timing=not arguments.no_timing)
    print(found.text)
    if found.problems:
        sys.exit(2)


if __name__ == "__main__":
    start(main)
