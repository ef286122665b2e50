"""Which way of sharing wins at equal size and equal training?    python -m benchmarks.comparison scenes --seeds 0 1 2

For each set (a preset compare_<set>) and seed: single-task networks, the fully shared one, trees, TAPS and experts
within the same budgets, each trained with the same FLOPs. Leaves artifacts/comparison/<set>/seed-<s>.json,
comparison.json and comparison.md. Stopped, the same command goes on; --root is the folder of the presets' data sets.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.compared.seed import compared
from benchmarks.compared.study import Study, own_names
from benchmarks.compared.tables import markdown, summary
from pipeline.artifacts import ARTIFACTS, read_json, read_manifests, write_json, write_manifests, writing
from pipeline.config import Config, load
from pipeline.machine import Machine, load_machine
from pipeline.preflight import check_study
from pipeline.preparing import declare, open_source, prepare_dataset
from pipeline.presets import preset_path, roots_below

RESULTS = ARTIFACTS / "comparison"


def main() -> None:
    asked = _arguments()
    torch.set_num_threads(1)
    studies = {name: _study(name, asked.root) for name in asked.sets}
    for seed in asked.seeds:  # a stopped comparison has whole seeds of all sets
        for name, study in studies.items():
            path = RESULTS / name / f"seed-{seed}.json"
            if not path.exists():
                print(f"{name}, seed {seed}", flush=True)
                write_json(path, compared(study, seed))
            _write(asked.sets, asked.seeds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("sets", nargs="+", metavar="SET", help="scenes, domains, fashion: a preset compare_SET")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of first weights and batches")
    parser.add_argument("--root", type=Path, help="the folder of the presets' data sets")
    return parser.parse_args()


def _study(name: str, root: Path | None) -> Study:
    """A set's settings, and its images prepared where they are not yet."""
    config = load(preset_path(f"compare_{name}"))
    machine = load_machine().model_copy(update={"threads": 1})
    if root is not None:
        machine = machine.model_copy(update={"roots": {**machine.roots, **roots_below(root, config)}})
    folder = RESULTS / name
    if not (folder / "prepare").exists():
        prepare(config, machine, folder)
    return Study(
        config=config, machine=machine, prepared=folder / "prepare", manifests=read_manifests(folder / "prepare")
    )


def prepare(config: Config, machine: Machine, base: Path) -> None:
    """Prepare each data set once; under each task's name lie the same images again, as experts want them."""
    sources = {name: open_source(name, config, machine) for name in config.datasets}
    declared = {name: declare(name, config, source) for name, source in sources.items()}
    check_study(config, declared)
    with writing("prepare", base) as folder:
        made = {
            name: prepare_dataset(declared[name], source, config, machine, folder, print)
            for name, source in sources.items()
        }
        again = {name: config.tasks[task].dataset for task, name in own_names(config).items()}
        for name, dataset in again.items():
            (folder / name).symlink_to(dataset)
        write_manifests(folder, [*made.values(), *(replace(made[old], name=new) for new, old in again.items())])


def _write(sets: Sequence[str], seeds: Sequence[int]) -> None:
    """The tables of all that is done so far."""
    found = {name: [RESULTS / name / f"seed-{seed}.json" for seed in seeds] for name in sets}
    done = {name: [read_json(path) for path in paths if path.exists()] for name, paths in found.items()}
    value = {name: summary(rows) for name, rows in done.items() if rows}
    write_json(RESULTS / "comparison.json", value)
    (RESULTS / "comparison.md").write_text(markdown(value))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")
