"""Readers of the user's own: `reader: my.module:function` and a source made of items."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.spec import Column
from pipeline.config import load
from pipeline.datasets import BadExample, Items, Source, SourceSettings, code_of, reader_of
from pipeline.machine import Machine
from pipeline.preparing import open_source
from tests.pipeline.cases import prepare, settings

SIZE = (12, 16)
KEY = "datasets.birds.reader"
BUILD = """
    from pipeline.datasets import Column, Items

    COLUMNS = {"species": Column(layout="class", classes=("owl", "wren"))}

    def build(settings):
        images = sorted(settings.root.glob("*.png"))
        items = [{"image": path, "species": path.stem.split("_")[0]} for path in images]
        return Items(settings, columns=COLUMNS, splits={None: items})
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder where commands run, with twelve pictures; its modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for number in range(12):
        save(tmp_path / f"pictures/{('owl', 'wren')[number % 2]}_{number}.png", noise(number))
    yield tmp_path
    for name in list(sys.modules):
        if name.partition(".")[0] in ("alone", "birds", "loose", "package", "readers"):
            del sys.modules[name]


def noise(seed: int, shape: tuple[int, ...] = (*SIZE, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))


def told(root: Path | None = None, images: int | None = None) -> SourceSettings:
    return SourceSettings(root=root, images=images, seed=0, size=SIZE)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_function_of_the_user_is_a_reader(study: Path, workers: int) -> None:
    """With two processes, these must find the module again."""
    write(study / "readers/birds.py", BUILD)
    config = settings({"reader": "readers.birds:build", "root": "pictures", "images": None, "size": SIZE})
    source = open_source("tiny", config, Machine())
    manifest, _ = prepare(study / "out", source, config, workers=workers)
    assert sum(manifest.counts.values()) == 12
    assert manifest.columns["species"].classes == ("owl", "wren")


def test_a_class_is_such_a_function(study: Path) -> None:
    text = """
        from pipeline.datasets import Example, Row, Source

        class Birds(Source):
            licence = "ours"
            def columns(self): return {}
            def rows(self): return [Row(id="a", origin="a", group="a")]
            def load(self, row): return Example(image=None, labels={})
    """
    write(study / "birds.py", text)
    assert reader_of("birds:Birds", KEY)(told()).rows()[0].id == "a"


WRONG = {
    "nothing:build": ("", r"no module nothing \(looked in .* and what is installed\)"),
    "package.nothing:build": ("", r"no module package\.nothing"),
    "birds:make": (BUILD, r"birds\.py has no function make"),
    "birds:COLUMNS": (BUILD, r"birds\.py has no function COLUMNS"),
    "birds:a": (
        "import absent",
        r"importing birds fails: .*birds\.py:1: ModuleNotFoundError: No module named 'absent'",
    ),
    "birds:b": ("1 / 0", r"importing birds fails: .*birds\.py:1: ZeroDivisionError"),
    "birds:c": ("def c(settings):\n    return settings.rot", r"birds:c fails: .*birds\.py:2: AttributeError: .*'rot'"),
    "birds:d": ("def d(settings): return [1]", r"birds:d gives a list, but a Source is expected"),
    "birds:e": (
        "from pipeline.datasets import Items\ndef e(s): return Items(s, columns={}, splits={'dev': []})",
        r"birds:e fails: .*split 'dev': use train, val, test",
    ),
    "birds:f": (
        "from pipeline.datasets import Items\ndef f(s): return Items(s, columns={}, splits={None: [lambda: 1]})",
        "birds:f: the source must be picklable",
    ),
    "birds:Bare": (
        "from pipeline.datasets import Source\nclass Bare(Source):\n    columns = rows = load = lambda self: {}",
        "birds:Bare: Bare says no licence",
    ),
    "birds:Half": (
        "from pipeline.datasets import Source\nclass Half(Source): pass",
        "birds:Half fails: .*TypeError: Can't instantiate abstract class",
    ),
}


@pytest.mark.parametrize(("reader", "text", "why"), [(reader, *rest) for reader, rest in WRONG.items()], ids=WRONG)
def test_what_is_wrong_with_it_is_one_message(reader: str, text: str, why: str, study: Path) -> None:
    write(study / "birds.py", text)
    write(study / "package/__init__.py", "")
    with pytest.raises(ValueError, match=rf"^datasets\.birds\.reader: .*{why}"):
        reader_of(reader, KEY)(told(study / "pictures"))


@pytest.mark.parametrize(
    ("reader", "right"),
    [("my.module:build", True), ("birds:build", True), ("birds:", False), (":build", False), ("my/birds.py:b", False)],
)
def test_the_settings_take_a_module_and_a_function(reader: str, right: bool, tmp_path: Path) -> None:
    text = Path("params.yaml").read_text()
    name = next(line for line in text.splitlines() if line.strip().startswith("reader:"))
    (tmp_path / "params.yaml").write_text(text.replace(name, name.split(":")[0] + f": '{reader}'", 1))
    if right:
        assert reader in {dataset.reader for dataset in load(tmp_path / "params.yaml").datasets.values()}
    else:
        with pytest.raises(ValueError, match=r"reader: no reader .* Write your own as my\.module:function"):
            load(tmp_path / "params.yaml")


def test_its_code_counts(study: Path) -> None:
    for file in ("alone.py", "readers/__init__.py", "readers/birds.py", "readers/deep/more.py", "loose/birds.py"):
        write(study / file, "raise RuntimeError('only the names of files are asked for')")
    assert code_of("alone:build") == [study / "alone.py"]
    package = [study / "readers" / name for name in ("__init__.py", "birds.py", "deep/more.py")]
    assert code_of("readers.birds:build") == package
    assert code_of("loose.birds:build") == [study / "loose/birds.py"]
    assert code_of("folders") == code_of("absent:build") == []


# Items

COLUMNS = {
    "kind": Column(layout="class", classes=("a", "b")),
    "mask": Column(layout="mask", classes=("x", "y")),
    "depth": Column(layout="field", scale=0.5, unit="m"),
    "boxes": Column(layout="boxes", classes=("x",)),
}


def full(folder: Path) -> dict[str, Any]:
    save(folder / "a.png", noise(1))
    save(folder / "mask.png", noise(2, SIZE) % 2)
    save(folder / "depth.png", np.full(SIZE, 3000, np.uint16))
    return {"image": "a.png", "kind": "b", "mask": "mask.png", "depth": "depth.png", "boxes": [[1, 2, 3, 4, 0]]}


def test_an_item_gives_files_and_values(tmp_path: Path) -> None:
    item = full(tmp_path)
    arrays = item | {"image": noise(1), "mask": noise(2, SIZE) % 2, "depth": np.full(SIZE, 1500.0)}
    pictures = item | {"image": Image.fromarray(noise(1)), "mask": tmp_path / "mask.png"}
    source = Items(told(tmp_path), columns=COLUMNS, splits={"train": [item, arrays, pictures, {"image": noise(1)}]})
    *complete, bare = [source.load(row) for row in pickle.loads(pickle.dumps(source)).rows()]
    for example in complete:
        assert np.array_equal(example.image, noise(1))
        assert example.labels["kind"] == "b"
        assert np.array_equal(example.labels["mask"], noise(2, SIZE) % 2)
        assert (example.labels["depth"] == 1500).all()
        assert example.labels["boxes"] == [[1, 2, 3, 4, 0]]
    assert bare.labels == dict.fromkeys(COLUMNS)


class Pairs:
    """A data set as torchvision's are, which counts what is read."""

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.read += 1
        return Image.fromarray(noise(index)), index % 2


def test_a_torch_data_set_is_read_item_by_item() -> None:
    pairs = Pairs()
    source = Items(told(), columns={"kind": COLUMNS["kind"]}, splits={"train": pairs, "test": Pairs()})
    rows = source.rows()
    assert [row.split for row in rows] == ["train"] * 5 + ["test"] * 5
    assert len({row.id for row in rows}) == len({row.group for row in rows}) == 10
    assert pairs.read == 0
    example = source.load(rows[3])
    assert pairs.read == 1
    assert np.array_equal(example.image, noise(3))
    assert example.labels == {"kind": 1}


def test_copies_and_named_groups_stay_together(tmp_path: Path) -> None:
    for name, seed in {"a": 1, "b": 2, "copy": 1}.items():
        save(tmp_path / f"{name}.png", noise(seed))
    items = [{"image": f"{name}.png"} for name in ("a", "b", "copy")] + [{"image": "b.png", "group": 7}] * 2
    source = Items(told(tmp_path), columns={}, splits={None: items})
    groups = [row.group for row in source.rows()]
    assert groups[0] == groups[2] != groups[1]
    assert groups[3:] == ["7", "7"]
    assert [row.id for row in Items(told(tmp_path, images=2), columns={}, splits={None: items}).rows()] == [
        row.id for row in Items(told(tmp_path, images=2), columns={}, splits={None: items}).rows()
    ]


BAD: dict[str, tuple[Any, str]] = {
    "typo": ({"image": noise(1), "knid": "a"}, "'knid' is none of the columns kind, mask"),
    "no image": ({"kind": "a"}, "image: object"),
    "planes": ({"image": noise(1, (3, 12, 16))}, r"image: uint8 \[3, 12, 16\], but a path, a PIL image or uint8"),
    "floats": ({"image": noise(1) / 255}, "image: float64"),
    "missing": ({"image": "none.png"}, r"none\.png: not found"),
    "size": ({"image": noise(1), "mask": noise(1, (3, 4))}, "mask: 4x3 pixels, but its image has 16x12"),
    "flat": ({"image": noise(1), "mask": [1, 2]}, r"mask: shape \[2\]"),
    "short": ((noise(1), 0), "a mapping or a tuple of image, kind, mask"),
    "text": ("a.png", "a mapping or a tuple"),
}


@pytest.mark.parametrize(("item", "why"), BAD.values(), ids=BAD)
def test_a_bad_item_says_why(item: Any, why: str, tmp_path: Path) -> None:
    source = Items(told(tmp_path), columns=COLUMNS, splits={None: [item]})
    (row,) = source.rows()
    with pytest.raises(BadExample, match=why):
        source.load(row)


class Broken(Pairs):
    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        raise KeyError("weights")


def test_an_error_in_a_data_set_is_a_bad_example_with_its_line() -> None:
    source: Source = Items(told(), columns={"kind": COLUMNS["kind"]}, splits={"train": Broken()})
    with pytest.raises(BadExample, match=r"the item can't be read: .*test_custom\.py:\d+: KeyError: 'weights'"):
        source.load(source.rows()[0])
