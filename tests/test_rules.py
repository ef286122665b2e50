"""The rules of the house that a machine can keep: who may import what."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ("models", "pipeline", "stages", "benchmarks", "tests")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def imports(path: Path, *, module_level: bool = False) -> frozenset[str]:
    """The dotted names that a file imports; `from a import b` counts as `a` and, where that is a module, `a.b`."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            found.add(node.module or "")
            found |= {f"{node.module}.{a.name}" for a in node.names if file_of(f"{node.module}.{a.name}")}
    return frozenset(found)


@cache
def file_of(module: str) -> Path | None:
    """A local module's file, or None for what is not ours."""
    if module.split(".")[0] not in LOCAL:
        return None
    base = ROOT.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.exists()), None)


def files_of(module: str) -> set[Path]:
    """What importing a module runs: its own file, and the `__init__` of every package on the way to it."""
    parts = module.split(".")
    found = (file_of(".".join(parts[: depth + 1])) for depth in range(len(parts)))
    return {path for path in found if path is not None}


def closure(start: Path, *, stop: frozenset[Path] = frozenset(), module_level: bool = False) -> set[Path]:
    """All local files that a file reaches by imports, itself included; those in `stop` are not followed."""
    seen, todo = set(), [start]
    while todo:
        path = todo.pop()
        if path in seen or path in stop:
            continue
        seen.add(path)
        todo += [file for module in imports(path, module_level=module_level) for file in files_of(module)]
    return seen


def tops(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources("models"), ids=name)
def test_models_know_torch_and_nothing_of_the_pipeline(path: Path) -> None:
    assert not tops(path) & {"pipeline", "stages", "benchmarks", "tests", "ray", "mlflow", "dvc", "pyarrow", "pydantic"}


@pytest.mark.parametrize("path", sources("pipeline"), ids=name)
def test_the_pipeline_knows_no_stage(path: Path) -> None:
    assert not tops(path) & {"stages", "benchmarks", "tests"}


@pytest.mark.parametrize("path", sources("stages"), ids=name)
def test_no_stage_reads_another(path: Path) -> None:
    assert not tops(path) & {"benchmarks", "tests"}
    allowed = {"stages", "stages.session", "stages.training", f"stages.{path.stem}_study"}
    assert {module for module in imports(path) if module.split(".")[0] == "stages"} <= allowed


@pytest.mark.parametrize(
    ("library", "owners"),
    [("ray", {"pipeline/runner.py"}), ("mlflow", {"pipeline/tracking.py"}), ("dvc", set())],
)
def test_one_file_for_each_service(library: str, owners: set[str]) -> None:
    users = {name(path) for path in sources("models", "pipeline", "stages") if library in tops(path)}
    assert users <= owners


def test_runner_and_tracking_never_meet() -> None:
    runner, tracking = ROOT / "pipeline/runner.py", ROOT / "pipeline/tracking.py"
    assert tracking not in closure(runner)
    assert runner not in closure(tracking)


@pytest.mark.parametrize(
    "start",
    [
        *(f"pipeline.{part}" for part in ("config", "datasets.base", "artifacts", "preparing", "storage", "tracking")),
        "pipeline.shipping",
        "stages.prepare",
        "stages.moe",
        "stages.adapt",
    ],
)
def test_no_torch_where_none_is_needed(start: str) -> None:
    """What only reads settings, files or tracking must start at once; `prepare` starts in each of its processes."""
    (*_, path) = sorted(files_of(start), key=lambda p: len(p.parts))
    path = file_of(start) or path
    for reached in closure(path, module_level=True):
        heavy = {module.split(".")[0] for module in imports(reached, module_level=True)}
        assert not heavy & {"torch", "torchvision", "timm", "torchmetrics"}, name(reached)


def test_what_decides_a_result_counts_towards_a_jobs_key() -> None:
    """`pipeline.jobs.SOURCES` against what the loop imports; settings and data count by value."""
    from pipeline.jobs import SOURCES

    parts = ("artifacts", "config", "jobs", "settings_file", "storage", "checkpoints", "strategies", "__init__")
    by_value = {f"pipeline/{part}.py" for part in parts} | {"models/__init__.py"}
    reached = {name(path) for path in closure(ROOT / "pipeline/loop.py")} - by_value
    counted = {name(path) for pattern in SOURCES for path in ROOT.glob(pattern)}
    assert reached <= counted
