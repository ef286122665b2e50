"""Benchmarks in small: what they assert of the fast paths, which lines they give, and the page that is written of them.

No time is judged here: a test machine is busy.
"""

import json
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.__main__ as program
from benchmarks.lines import KEPT, Goal, Line, faster, figure, longer, read, show
from benchmarks.results import written
from benchmarks.timing import Times, in_turn
from tests.pipeline.cases import DECODING

# What makes a benchmark small enough to run here; those that are left out take a whole chain or cluster.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "taps": {"CASES": (("test_resnet", 32, 2), ("test_vit", 160, 1)), "ROUNDS": 1},
    "moe": {
        "STAGES": ((49, 16),),
        "BATCHES": (1,),
        "BACKBONE": "swin_nano_patch4_window4",
        "SIZE": (32, 32),
        "ROUNDS": 1,
    },
    "rsa": {"FEATURES": ((12, 300, 1),), "TASKS": ((12, 3, 1),), "PAIRS": 3},
    "trees": {"TASKS": (4,), "FEW": 3, "MANY": (8, 3), "WALKED": 50, "ROUNDS": 1},
    "branched": {
        "TREES": (("test_resnet", 32, 2),),
        "BUNDLES": (("test_vit", 160, 1),),
        "ROUNDS": 1,
    },
    "merged": {"CASES": (("test_resnet", 1), ("test_vit", 1)), "SIZE": 160, "ROUNDS": 2, "SWITCHES": 1},
}


def line(value: float = 1.0, goal: Goal | None = None, row: int = 1) -> Line:
    return Line(row=row, what="ours | on small images", beside="theirs", value=value, low=0.9, high=1.1, goal=goal)


@pytest.fixture
def threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.filterwarnings(DECODING)
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs_and_its_sides_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module(f"benchmarks.{name}")
    for constant, value in SMALL[name].items():
        assert hasattr(module, constant)
        monkeypatch.setattr(module, constant, value)
    found = list(module.lines())
    assert found
    assert {one.row for one in found} <= program.ROWS.keys()
    assert all(math.isfinite(value) for one in found for value in (one.value, one.low, one.high))
    assert all(one.low <= one.value <= one.high for one in found)


@pytest.mark.parametrize("name", program.BENCHMARKS)
def test_a_benchmark_says_what_it_compares_and_how_it_is_run(name: str) -> None:
    module = import_module(f"benchmarks.{name}")
    first, _, rest = (module.__doc__ or "").partition("\n")
    assert f".    python -m benchmarks.{name}    (" in first
    assert rest.strip()
    assert callable(module.lines)


def test_a_ratio_says_which_side_takes_longer() -> None:
    mine, base = Times(wall=(2.0, 2.0, 8.0), cpu=(1.0, 1.0, 1.0)), Times(wall=(1.0, 2.0, 2.0), cpu=(4.0, 2.0, 2.0))
    slow = longer(1, "", "", mine, base, clock="wall")
    assert (slow.value, slow.low, slow.high) == (2.0, 1.0, 4.0)
    fast = faster(1, "", "", mine, base)
    assert (fast.value, fast.low, fast.high) == (2.0, 2.0, 4.0)
    assert slow.took == "2 s"
    assert fast.took == "1 s"


@pytest.mark.parametrize(
    ("goal", "text", "inside", "outside"),
    [
        (Goal(most=1.05), "≤ 1.05", 1.05, 1.0501),
        (Goal(least=20), "≥ 20", 20, 19.9),
        (Goal(least=10_000), "≥ 10,000", 1e5, 9999),
        (Goal(least=0.98, most=1.02), "0.98 – 1.02", 1.0, 0.97),
    ],
)
def test_a_goal_is_met_or_missed(goal: Goal, text: str, inside: float, outside: float) -> None:
    assert str(goal) == text
    assert line(inside, goal).verdict == "met"
    assert line(outside, goal).verdict == "missed"
    assert line().verdict == ""


def test_rounds_take_turns_and_the_first_does_not_count() -> None:
    seen: list[str] = []
    times = in_turn({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2)
    assert seen == ["b", "a", "a", "b", "b", "a"]
    assert all(len(taken.wall) == len(taken.cpu) == 2 for taken in times.values())


def test_lines_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    lines = [line(0.5, Goal(most=1.05)), figure(2, "memory", "", [1.0, 3.0, 2.0], "MiB")]
    monkeypatch.setenv(KEPT, str(tmp_path / "kept"))
    show(lines)
    assert read(json.loads((tmp_path / "kept").read_text())) == lines
    assert "× 0.500 (0.900 – 1.100); goal ≤ 1.05: met" in capsys.readouterr().out


def test_the_page_has_every_line_under_its_row_and_machine() -> None:
    def record(name: str, machine: str, *lines: Line) -> dict[str, Any]:
        raw = [json.loads(json.dumps(vars(one) | {"goal": vars(one.goal) if one.goal else None})) for one in lines]
        return {
            "name": name,
            "title": name,
            "command": f"python -m benchmarks.{name}",
            "seconds": 61.0,
            "load": 0.5,
        } | {"date": "2026-01-01", "revision": "abc", "machine": machine, "versions": {"torch": "2"}, "lines": raw}

    page = written(
        [
            record("a", "small", line(1.0, Goal(most=1.05)), line(2.0, row=2)),
            record("b", "large", line(3.0, Goal(most=1.0))),
        ],
        {1: "First", 2: "Second"},
    )
    large, small = page.split("## large")[1].split("## small")
    assert "1 of 1 goals met" in small
    assert "0 of 1 goals met" in large
    assert small.index("1. First") < small.index("× 1.000") < small.index("2. Second") < small.index("× 2.000")
    assert "| ours / on small images | theirs | × 3.000 | 0.900 – 1.100 |  |  | ≤ 1 | missed |" in large
    assert "Second" not in large


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But what an earlier round measured is, and its lines stay in the page until then."""
    ran: list[str] = []

    def run(name: str, _kept: Path, ended: Path) -> bool:
        ran.append(name)
        if name != "moe":
            (ended / name).touch()
        return name != "moe"

    monkeypatch.setattr(program, "MEASURED", tmp_path / "measured")
    monkeypatch.setattr(program, "ENDED", tmp_path / "ended")
    monkeypatch.setattr(program, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(program, "_run", run)
    monkeypatch.setattr("sys.argv", ["benchmarks"])
    device = "gpu" if torch.cuda.is_available() else "cpu"
    for folder in ("measured", "ended"):
        (tmp_path / folder / device).mkdir(parents=True)
    record = {"machine": "m", "versions": {}, "title": "", "command": "an earlier one", "seconds": 1, "load": 0}
    record |= {"revision": "", "date": "", "lines": []}
    (tmp_path / "measured" / device / "trees.json").write_text(json.dumps(record))
    (tmp_path / "ended" / device / "rsa").touch()
    with pytest.raises(SystemExit, match="moe ended in an error"):
        program.main()
    assert set(ran) == set(program.BENCHMARKS) - {"rsa"}
    assert "an earlier one" in (tmp_path / "RESULTS.md").read_text()
    ran.clear()
    with pytest.raises(SystemExit, match="moe ended in an error"):
        program.main()
    assert ran == ["moe"]
