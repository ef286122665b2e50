"""What lies in the data sets, before anything is prepared.    python -m stages.check_data [--preset NAME --root FOLDER]

What `make check-data` runs; seconds. Reads params.yaml and machine.yaml, prints counts, ranges and what looks wrong,
and leaves check/index.html, check/summary.json and two pictures a data set. Leaves with 2 where `prepare` would stop.
"""

import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from pipeline.artifacts import write_json, writing
from pipeline.check.page import check_page
from pipeline.check.text import check_text, warning_count
from pipeline.checking import CHUNKS, DatasetCheck, check_dataset
from pipeline.config import ROOT, Config, Task, load
from pipeline.machine import Machine, load_machine
from pipeline.presets import adopt_preset
from stages.session import start

DOTS = 130  # per inch
SAMPLES = 8  # images drawn of a data set
UNUSED = 8  # columns without a task that are printed; the page has all
UNUSED_HEADING = "No task learns from these columns; such lines under tasks: in params.yaml would make one."


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parse(arguments)
    if asked.preset:
        print(adopt_preset(asked.preset, asked.root))
    elif asked.root:
        raise ValueError("--root says where a preset's data lie: give --preset too")
    began, config, machine = time.monotonic(), load(), load_machine()
    checks, stops = _look(config, machine)
    texts = {name: check_text(check, _tasks(config, name)) for name, check in checks.items()}
    wrong, unused = _study(config, checks)
    stops += wrong
    if unused:
        few, more = unused[:UNUSED], len(unused) - UNUSED
        print("\n".join([UNUSED_HEADING, *few, *([f"  # and {more} more, in check/index.html"] if more > 0 else [])]))
        texts["columns that no task learns from"] = "\n".join([UNUSED_HEADING, *unused])
    if stops:
        texts["what stops prepare"] = "\n".join(stops)
    page = _leave(texts, checks, stops)
    warnings, sets = warning_count(list(checks.values())), len(config.datasets)
    print(
        f"\ncheck-data: data sets: {sets}, warnings: {warnings}, {time.monotonic() - began:.0f} s -> {page}", flush=True
    )
    if stops:
        listed = "\n  ".join(text.replace("\n", "\n  ") for text in stops)
        raise ValueError(f"what would stop prepare ({len(stops)}):\n  {listed}")


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m stages.check_data", description="Look at the data; train nothing.")
    parser.add_argument("--preset", help="a file of presets/, without .yaml; it becomes params.yaml")
    parser.add_argument("--root", type=Path, help="the folder of the preset's data sets")
    return parser.parse_args(arguments)


def _look(config: Config, machine: Machine) -> tuple[dict[str, DatasetCheck], list[str]]:
    """Check and print one data set after the other; those that can't be listed are named at the end."""
    checks: dict[str, DatasetCheck] = {}
    stops: list[str] = []
    workers = min(machine.prepare_workers or os.cpu_count() or 1, CHUNKS)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for name in config.datasets:
            try:
                checks[name] = check_dataset(name, config, machine, pool.map, SAMPLES)
            except ValueError as error:
                stops.append(f"data set {name}: {error}")
                continue
            stops += [f"data set {name}: {text}" for text in checks[name].stops]
            print(check_text(checks[name], _tasks(config, name)), end="\n\n", flush=True)
    return checks, stops


def _study(config: Config, checks: Mapping[str, DatasetCheck]) -> tuple[list[str], list[str]]:
    """What of the study can't be trained on these columns, and tasks for those that none learns from."""
    # Each process that reads images imports this file: it needs no torch.
    from pipeline.check.kinds import study_stops, unused_columns

    declared = {name: check.manifest for name, check in checks.items()}
    return study_stops(config, declared), list(unused_columns(config, declared))


def _leave(texts: Mapping[str, str], checks: Mapping[str, DatasetCheck], stops: Sequence[str]) -> Path:
    """Write the page with its pictures and the summary; give back the page's path in this folder."""
    from pipeline.check.pictures import label_sheet, value_sheet

    pictures: dict[str, list[str]] = {}
    with writing("check", ROOT) as folder:
        for name, check in checks.items():
            for file, draw in ((f"{name}.png", label_sheet), (f"{name}-values.png", value_sheet)):
                if (figure := draw(check)) is not None:
                    figure.savefig(folder / file, dpi=DOTS)
                    pictures.setdefault(name, []).append(file)
        summary = {"datasets": {name: check.as_json() for name, check in checks.items()}, "stops": list(stops)}
        write_json(folder / "summary.json", summary)
        (folder / "index.html").write_text(check_page("check-data", texts, pictures), encoding="utf-8")
    return Path("check/index.html")


def _tasks(config: Config, dataset: str) -> dict[str, Task]:
    return {name: task for name, task in config.tasks.items() if task.dataset == dataset}


if __name__ == "__main__":
    start(main)
