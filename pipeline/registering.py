"""The study's networks -> models in MLflow's registry: the best on validation, the smallest, and the baseline.

What is registered is the bundles themselves with the program that reads them, so that `mlflow models serve` answers.
"""

import shutil
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from torchvision.io import encode_png

from models.bundle import adopt_task, load
from pipeline.artifacts import digest
from pipeline.config import ROOT
from pipeline.machine import Machine
from pipeline.network_runs import Entry, baseline_entry, network_entry, network_run, split_entries
from pipeline.report.samples import open_split
from pipeline.report.study import Study
from pipeline.report.tables import best_on_validation
from pipeline.run_view import NAME, comparison_view
from pipeline.storage import JobFolder
from pipeline.tracked_run import Run
from pipeline.tracker import Tracker

CODE = ("models", "pipeline/__init__.py", "pipeline/predictions.py", "pipeline/serving.py")
LIBRARIES = (  # what that code imports; tests/pipeline/test_registering.py compares
    *("mlflow", "numpy", "peft", "pillow", "safetensors", "segmentation-models-pytorch", "timm", "torch"),
    *("torchmetrics", "torchvision"),
)


def record_networks(
    study: Study, machine: Machine, base: Path, tracker: Tracker, run: Run, tags: Mapping[str, str]
) -> str:
    """Show a study's networks in tracking, each as a run, some as registered models; say the latter in a line.

    `base` is the folder of all artifacts, `run` the report's.
    """
    for entry in split_entries(study):
        network_run(study, entry, tracker, run, tags)
    if machine.mlflow_view:
        run.view(NAME, comparison_view())
    if not machine.mlflow_models:
        return ""
    name, found = model_name(study.config.experiment), registered(study)
    common = {
        "name": name,
        "requirements": [f"{library}=={version(library).partition('+')[0]}" for library in LIBRARIES],
        "inputs": [{"type": "string", "name": "image", "required": True}],
        "outputs": [{"type": "any", "name": task, "required": True} for task in study.tasks],
        "example": {"image": _example(study, base)},
    }
    for alias, entry in found.items():
        own = {"alias": alias, "digest": digest(entry.jobs), "metrics": dict(entry.metrics)}
        own |= {"description": description(entry)}
        network_run(study, entry, tracker, run, tags).model(
            {**common, **own}, lambda folder, jobs=entry.jobs: pack(jobs, machine, folder)
        )
    return f"models {name}: " + ", ".join(f"{entry.label} (@{alias})" for alias, entry in found.items())


def description(entry: Entry) -> str:
    """Map a network to a line for the registry."""
    kind = "" if entry.strategy in entry.label.lower() else f"{entry.strategy} "
    size, delta = entry.metrics["params_m"], entry.metrics["final/delta_mtl"]
    tasks = ", ".join(entry.test)
    return f"{kind}{entry.label}, seed {entry.seed}: {size:.2f} M parameters, Δ_MTL {delta:+.1f} % on test. {tasks}."


def model_name(experiment: str) -> str:
    """Map an experiment's name to that of its registered model, which knows no slash and no colon."""
    return experiment.replace("/", "-").replace(":", "-")


def registered(study: Study) -> dict[str, Entry]:
    """Map a study to what is registered, by alias; one network may have two."""
    smallest = min(study.networks, key=lambda network: (network.params, -mean(study.deltas(network, "val"))))
    return {
        "champion": network_entry(study, best_on_validation(study)),
        "smallest": network_entry(study, smallest),
        "baseline": baseline_entry(study),
    }


def pack(jobs: Sequence[str], machine: Machine, folder: Path) -> None:
    """Fill a folder with the bundles of jobs, in data/, and the program that reads them, in code/.

    Where several jobs stand beside one base of TAPS, they are put together with it.
    """
    for number, job in enumerate(jobs):
        with TemporaryDirectory() as draft:
            JobFolder(machine.storage, job).download("bundle", Path(draft))
            network = load(draft).network
            if network.spec.strategy == "taps" and len(jobs) > 1:
                for task in network.tasks:
                    adopt_task(Path(draft), task, folder / "data" / "taps")
            else:
                shutil.copytree(draft, folder / "data" / f"{number:03d}")
    for path in (file for part in CODE for file in (ROOT / part, *(ROOT / part).rglob("*.py")) if file.is_file()):
        target = folder / "code" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _example(study: Study, base: Path) -> list[str]:
    """Two test images as base64 of PNG files."""
    split = open_split(study, study.config.tasks[study.tasks[0]].dataset, "test", base, {})
    images = split.read([0, len(split) - 1]).images
    return [b64encode(encode_png(image).numpy().tobytes()).decode() for image in images]
