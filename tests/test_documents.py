"""Every command of README and docs/: its target, module and options are there, and a test runs it, or it says why none.

A command that no line of RUN, of NOT_HERE or of the tests below knows fails `test_every_command_is_accounted_for`.
"""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from models import bundle
from models.sharing import SHARING
from models.spec import BackboneSpec, ModelSpec
from pipeline.config import ROOT
from tests.models.task_cases import spec

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PROGRAMS = "make|python|dvc|ray|mlflow|sbatch|kubectl|ssh|scp|git|cp|export|pip|sent"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:make|python -m|dvc|mlflow|ray|sbatch|kubectl) [^`]+)`")

# What a command looks like, and the test that runs it, or what runs it in every change.
RUN = {
    r"make repro PRESET=smoke.*|make repro|make (test|check|setup)|dvc repro": ".ci/run",
    r"make repro PRESET=\w+( ROOT=\S+)?": "tests/pipeline/test_presets.py",
    r"make check-data": "tests/stages/test_check_data.py",
    r"make plan.*": "tests/stages/test_plan.py",
    r"make manifest .*": "tests/pipeline/test_manifest_making.py",
    r"make (submit|fetch).*|python -m stages\.submitted": "tests/stages/test_submit.py",
    r"make ui": "tests/test_safety.py",
    r"make faults": "tests/pipeline/test_faults.py",
    r"make pages": "tests/pipeline/test_report_browser.py",
    r"make fuzz": "tests/fuzz/test_settings.py",
    r"make bench.*": "tests/test_benchmarks.py",
    r"make bug": "tests/stages/test_bug.py",
    r"python -m pipeline\.tracking": "tests/pipeline/test_tracking.py",
    r"python -m stages\.(predict|info|only|export) .*": "tests/test_documents.py",
    r"python -m benchmarks\.scale": "tests/test_scale.py",
    r"python -m benchmarks\.comparison.*": "tests/test_comparison.py",
    r"python -m pytest .*": ".ci/run",
    r"ray (start|stop).*|ray get-auth-token.*": "tests/ray_nodes.py",
    r"ray job.*|RAY_RUNTIME_ENV.*|sent=.*|git ls-files.*|cp cluster\.yaml.*": "tests/test_deploy.py",
    r"sbatch deploy/slurm\.sh": "tests/test_slurm.py",
    r"dvc (dag|exp|metrics|plots|params|pull|push|remote|status).*": "tests/test_dvc.py",
    r"mlflow (server|models serve) .*": "tests/pipeline/test_registering.py",
}
# And what no test here can run.
NOT_HERE = {
    r"make repro PRESET=\w+( ROOT=…)?": "hours of training; two steps of each run in tests/pipeline/test_presets.py",
    r"make soak.*": "half an hour",
    r"ray (up|dashboard).*": "a cloud's machines; the file is checked by Ray's own schema in tests/test_deploy.py",
    r"kubectl .*|export RAY_AUTH.*kubectl.*": "Kubernetes; tests/test_deploy.py holds the file against its fields",
    r"(ssh|scp) .*": "other machines",
    r"export .*": "sets a variable",
}


@cache
def commands() -> dict[str, list[str]]:
    """Every command, with the pages that name it; without its comment."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        text = page.read_text()
        lines = [line for kind, block in FENCED.findall(text) if kind in ("", "sh") for line in block.splitlines()]
        told = [line for line in lines if re.match(rf"({PROGRAMS})[ =]|RAY_", line)]
        told += [" ".join(one.split()) for one in INLINE.findall(FENCED.sub("", text))]
        for line in told:
            for part in re.split(r"\s+#\s|\s+&&\s+", line)[:: 1 if "&&" in line else 2]:
                found.setdefault(part.strip().removesuffix(" &"), []).append(page.name)
    return found


def test_the_pages_have_commands() -> None:
    assert len(commands()) > 30
    assert {"README.md", "cluster.md", "own-data.md", "quickstart.md"} <= {
        page for where in commands().values() for page in where
    }


def test_every_command_is_accounted_for() -> None:
    known = [*RUN, *NOT_HERE]
    strange = {
        command: pages
        for command, pages in commands().items()
        if not any(re.fullmatch(pattern, command) for pattern in known)
    }
    assert not strange


def test_no_line_of_the_tables_is_left_over() -> None:
    for pattern in (*RUN, *NOT_HERE):
        assert any(re.fullmatch(pattern, command) for command in commands()), f"no page says {pattern}"


@pytest.mark.parametrize("place", sorted(set(RUN.values())))
def test_what_runs_them_is_there(place: str) -> None:
    assert (ROOT / place).exists()


def test_make_has_the_targets_and_reads_the_variables() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in commands():
        if not command.startswith("make "):
            continue
        target, *variables = shlex.split(command)[1:]
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), command
        for variable in variables:
            assert f"$({variable.partition('=')[0]})" in makefile, command


@pytest.mark.parametrize("module", sorted({one.split()[2] for one in commands() if one.startswith("python -m")}))
def test_modules_are_there_with_the_options(module: str) -> None:
    options = {
        word for one in commands() if one.split()[1:3] == ["-m", module] for word in re.findall(r" (--?[\w-]+)", one)
    }
    options -= {"-m"}
    if not options or module == "pytest":
        subprocess.run(
            [sys.executable, "-c", f"import importlib.util as u; assert u.find_spec({module!r})"], cwd=ROOT, check=True
        )
        return
    said = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert all(re.search(rf"(^|\s){option}\b", said.stdout) for option in options), (options, said.stdout)


def test_python_examples_are_python() -> None:
    for page in PAGES:
        for kind, block in FENCED.findall(page.read_text()):
            if kind == "python" and not block.startswith(" "):
                ast.parse(block)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
        for path in re.findall(
            r"`((?:docs|presets|deploy|models|pipeline|stages|tests|benchmarks)/[\w./-]+)`", page.read_text()
        ):
            assert Path(ROOT / path).exists(), f"{page.name}: {path}"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages name: a trained bundle of three tasks, a photo, a folder of photos."""
    here = tmp_path_factory.mktemp("study")
    torch.manual_seed(0)
    tasks = tuple(spec(kind, name=kind) for kind in ("classification", "segmentation", "depth"))
    network = SHARING["branched"](
        ModelSpec(
            strategy="branched",
            backbone=BackboneSpec(name="test_byobnet", locations=2, size=(64, 64)),
            tasks=tasks,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            groups=((0, 1, 2),) * 2,
        )
    )
    (here / "artifacts/branched").mkdir(parents=True)
    bundle.save(network, here / "artifacts/branched/split-s0")
    (here / "photos").mkdir()
    for path in ("photo.jpg", "photos/1.png"):
        Image.new("RGB", (80, 60), "teal").save(here / path)
    return here


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [one for one in commands() if re.match(r"python -m stages\.(predict|info|only|export) ", one)]
)
def test_what_is_done_with_a_bundle(command: str, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)
    _, _, module, *arguments = shlex.split(command)
    importlib.import_module(module).main(arguments)
    assert all(Path(name).exists() for name in arguments if not name.startswith("-") and name not in ("depth",))


@pytest.mark.slow
def test_the_python_example_runs(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)
    (example,) = [code for kind, code in FENCED.findall((ROOT / "docs/quickstart.md").read_text()) if kind == "python"]
    found: dict = {}
    exec(example, found)
    assert set(found["predictions"]) == {"classification", "segmentation", "depth"}
    assert found["depth"].shape == (2, 64, 64)
