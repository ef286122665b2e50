"""What `check-data` says of a data set, against counts made by other means; and what it warns of."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from models.spec import IGNORE, Column, TaskSpec
from models.tasks import TASKS
from pipeline.check import sample
from pipeline.check.columns import check_column
from pipeline.check.kinds import fitting_kinds, study_stops, unused_columns
from pipeline.check.page import check_page
from pipeline.check.pictures import label_sheet, value_sheet
from pipeline.check.rows import FieldFacts, NormalFacts, Seen, look
from pipeline.check.text import check_text, warning_count
from pipeline.checking import CHUNKS, Apply, DatasetCheck, check_dataset
from pipeline.config import Config, Task
from pipeline.datasets import SPLITS, Example, Row, Source
from pipeline.machine import Machine
from pipeline.preparing import assign_splits, declare
from tests.pipeline import number_source
from tests.pipeline.cases import DECODING, settings
from tests.pipeline.layouts._pictures import noise, save
from tests.pipeline.number_source import COLUMNS, SIZE, Numbers, labels_of

LAYOUTS = sorted(path.stem for path in (Path(__file__).parent / "layouts").glob("[a-z]*.py"))


def check_of(
    source: Source | None = None, *, apply: Apply = map, on_bad: str = "fail", samples: int = 6, **dataset: Any
) -> DatasetCheck:
    """The check of a data set named `tiny`: of a source at hand, or of what its settings open."""
    config = settings({"size": SIZE, **dataset}, prepare={"on_bad": on_bad})
    with pytest.MonkeyPatch.context() as patch:
        if source is not None:
            patch.setattr("pipeline.checking.open_source", lambda *_: source)
        return check_dataset("tiny", config, Machine(), apply, samples)


def text_of(check: DatasetCheck, **tasks: str) -> str:
    return check_text(check, {name: Task(kind=kind, dataset="tiny") for name, kind in tasks.items()})


def of(name: str, folder: Path, **dataset: Any) -> DatasetCheck:
    """The check of a public layout's small tree."""
    root = import_module(f"tests.pipeline.layouts.{name}").plant(folder)
    return check_of(reader=name, root=str(root), images=None, val=0.3, test=0.3, **dataset)


@pytest.fixture(scope="module")
def numbers() -> DatasetCheck:
    return check_of(Numbers(number_source.rows(120)), images=None)


def labels(check: DatasetCheck, name: str, *splits: str) -> list[Any]:
    """A column's labels in the made-up rows of these splits, without the unlabelled ones."""
    drawn = assign_splits(check.source.rows(), val=0.2, test=0.2, seed=0)
    found = [labels_of(int(row.id))[name] for split in splits for row in drawn[split]]
    return [label for label in found if label is not None]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.filterwarnings(DECODING)
def test_every_layout_is_counted_described_and_drawn(name: str, tmp_path: Path) -> None:
    check = of(name, tmp_path)
    drawn = assign_splits(check.source.rows(), val=0.3, test=0.3, seed=0)
    assert check.counts == {split: len(rows) for split, rows in drawn.items()}
    assert check.looked_at == check.total
    assert not check.stops
    assert check.columns.keys() == check.source.columns().keys()
    text = text_of(check)
    assert all(heading in text for heading in ("licence", "images", "sizes", "colours", "copies", *check.columns))
    json.dumps(check.as_json(), allow_nan=False)
    for figure in (label_sheet(check), value_sheet(check)):
        assert figure is not None
        figure.savefig(tmp_path / "sheet.png", dpi=20)
    for column, summary in check.columns.items():
        assert sum(summary.looked_at.values()) == check.total
        assert fitting_kinds(column, summary.column)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_data_set_s_folder_given_to_another_reader_names_its_own(name: str, tmp_path: Path) -> None:
    source = of(name, tmp_path).source
    if not type(source).marks:
        pytest.skip("this layout has no marks")
    with pytest.raises(ValueError, match=rf"looks like the layout of .*\b{name}\b.*reader"):
        check_of(reader="celeba" if name == "fashion" else "fashion", root=str(source.settings.root))


REAL = {
    "cifar100": ("folders", "cifar100/cifar100", (32, 32)),
    "bccd": ("voc", "bccd/BCCD", (96, 128)),
    "celeba": ("celeba", "celeba", (44, 36)),
    "fashion": ("fashion", "fashion-product-images-small", (80, 64)),
    "nyuv2": ("nyuv2", "nyuv2", (96, 128)),
    "coco128": ("coco", "coco128", (128, 160)),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.filterwarnings(DECODING)
def test_the_real_sets(name: str) -> None:
    reader, inner, size = REAL[name]
    folder = os.environ.get("COPPICE_DATA")
    if not folder or not (Path(folder) / inner).is_dir():
        pytest.skip(f"COPPICE_DATA, the folder with the unpacked sets, holds no {name}")
    check = check_of(reader=reader, root=f"{folder}/{inner}", images=12, size=size, val=0.2, test=0.2, samples=2)
    assert check.total == check.looked_at == 12
    assert not check.stops
    assert label_sheet(check) is not None
    assert value_sheet(check) is not None
    assert all(summary.labelled["train"] for summary in check.columns.values())


def test_classes_are_counted_in_each_split(numbers: DatasetCheck) -> None:
    for split in SPLITS:
        counts = Counter(labels(numbers, "kind", split))
        assert numbers.columns["kind"].numbers["counts"][split] == [counts[index] for index in range(4)]
        assert numbers.columns["kind"].labelled[split] == sum(counts.values())


def test_flags_pixels_and_ranges_are_those_of_the_labels(numbers: DatasetCheck) -> None:
    flags = np.array(labels(numbers, "flags", "train"))
    yes = [(flags[:, k] == 1).sum() / (flags[:, k] >= 0).sum() for k in range(3)]
    assert numbers.columns["flags"].numbers["yes"] == pytest.approx(yes)
    mask = np.stack(labels(numbers, "mask", *SPLITS))
    assert numbers.columns["mask"].numbers["unlabelled"] == pytest.approx((mask == IGNORE).mean())
    shares = [(mask == k).sum() / (mask != IGNORE).sum() for k in range(3)]
    assert numbers.columns["mask"].numbers["shares"] == pytest.approx(shares)
    field = np.stack(labels(numbers, "field", *SPLITS)).astype(np.float32)
    found = numbers.columns["field"].numbers
    assert (found["low"], found["high"]) == (field[field > 0].min(), field.max())
    assert found["median"] == pytest.approx(np.median(field), rel=0.05)  # of some pixels of each image


def test_boxes_and_points_are_counted_by_image_and_class(numbers: DatasetCheck) -> None:
    for name in ("points", "boxes"):
        entries, found = labels(numbers, name, *SPLITS), numbers.columns[name].numbers
        assert found["an_image"]["most"] == max(map(len, entries))
        assert found["an_image"]["median"] == np.median([len(entry) for entry in entries])
        assert found["counts"]["all"] == np.bincount(np.concatenate(entries)[:, -1].astype(int), minlength=2).tolist()
    boxes = np.concatenate(labels(numbers, "boxes", *SPLITS))
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    assert numbers.columns["boxes"].numbers["side"] == pytest.approx(sides, abs=0.051)


def test_means_are_those_that_prepare_finds(numbers: DatasetCheck) -> None:
    levels = np.array([int(row.id) % 256 for row in numbers.source.rows()]) / 255  # an image of `Numbers` is one grey
    assert numbers.images is not None
    assert numbers.images.mean == pytest.approx([levels.mean()] * 3, abs=1e-4)
    assert numbers.images.std == pytest.approx([levels.std()] * 3, abs=1e-4)
    assert numbers.images.grey == numbers.images.blank == 120
    assert "120 of 120 images are of one colour all over" in text_of(numbers)


def test_processes_find_what_one_process_finds() -> None:
    source = Numbers(number_source.rows(CHUNKS * 3 + 5), bad=["7", "20"])
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr("pipeline.checking.pick", lambda source, splits: (sample.pick(source, splits)[0], 99.0))
        many = check_of(source, images=None, on_bad="skip", apply=pool.map)
    assert many.as_json() == check_of(source, images=None, on_bad="skip").as_json()


def test_a_task_is_named_with_its_column_and_a_warning_counted(numbers: DatasetCheck) -> None:
    text = check_text(
        numbers,
        {
            "kind": Task(kind="classification", dataset="tiny"),
            "far": Task(kind="depth", dataset="tiny", column="field"),
        },
    )
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "task kind (classification)" in lines["kind"]
    assert "task far (depth)" in lines["field"]
    assert "no task" in lines["mask"]
    assert text.count("warning") == warning_count([numbers])


@pytest.mark.parametrize("on_bad", ["fail", "skip"])
def test_bad_rows_are_listed_with_their_file_and_stop_prepare_only_where_it_would_stop(on_bad: str) -> None:
    bad = [str(index) for index in range(3, 11)]
    check = check_of(Numbers(number_source.rows(60), bad=bad[:6], out=bad[6:]), images=None, on_bad=on_bad)
    (said,) = [text for text in (*check.stops, *check.warnings) if "are bad" in text]
    assert said in (check.stops if on_bad == "fail" else check.warnings)
    assert "8 of the 60 rows looked at are bad; first 5" in said
    assert said.count("list.csv row ") == 5
    assert "not an image" in said
    assert check.images is not None
    assert check.images.read == 52


def test_a_set_without_one_readable_image_is_still_described() -> None:
    check = check_of(Numbers(number_source.rows(8), bad=list(map(str, range(8)))), images=None, on_bad="skip")
    assert "8 of the 8 rows looked at are bad" in check.stops[0]
    assert check.images is label_sheet(check) is value_sheet(check) is None
    assert "8: train" in text_of(check)


@pytest.mark.parametrize("split", ["val", "none"])
@pytest.mark.filterwarnings(DECODING)
def test_a_set_whose_training_rows_have_no_labels_is_described_and_drawn(split: str) -> None:
    class Bare(Numbers):
        def columns(self) -> Mapping[str, Column]:
            return {**COLUMNS, "two": Column(layout="class", classes=("no", "yes"))}

        def load(self, row: Row) -> Example:
            example = super().load(row)
            if row.split != split:
                return Example(image=example.image, labels={})
            return Example(image=example.image, labels={**example.labels, "two": 1})

    made = [row for split in SPLITS for row in number_source.rows(20, split=split)]
    check = check_of(Bare(made), images=None)
    assert all("has a label" in summary.warnings[0] for summary in check.columns.values())
    assert "no image of train" in text_of(check)
    assert label_sheet(check) is not None
    assert (value_sheet(check) is None) == (split == "none")
    json.dumps(check.as_json(), allow_nan=False)


def test_an_empty_split_stops() -> None:
    check = check_of(Numbers(number_source.rows(30)), images=None, val=0.0)
    assert check.stops == ("no val images; raise datasets.tiny.val / test or images",)


def test_large_sets_are_sampled_evenly_over_splits_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SECONDS", 1e-9)
    source = Numbers([*number_source.rows(400, split="train"), *number_source.rows(30, split="test")])
    check = check_of(source, images=None, val=0.1)
    labels = check.columns["kind"].looked_at
    assert check.looked_at == sum(labels.values()) < 120
    assert all(labels[split] >= sample.LEAST for split in SPLITS)
    assert f"{check.looked_at:,}, evenly over every split" in text_of(check)
    picked, _ = sample.pick(source, assign_splits(source.rows(), val=0.1, test=0, seed=0))
    numbers = [int(row.id) for split, row in picked if split == "train"]
    assert max(np.diff(numbers)) < 30


def test_what_the_rows_know_is_counted_over_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Known(Numbers):
        def columns(self) -> Mapping[str, Column]:
            return {"kind": COLUMNS["kind"]}

    monkeypatch.setattr(sample, "SECONDS", 1e-9)
    made = number_source.rows(300)
    known = [row for row in made if labels_of(int(row.id))["kind"] is not None]
    indexed = [Row(**{**vars(row), "label": labels_of(int(row.id))["kind"]}) for row in known]
    right = check_of(Known(indexed), images=None)
    assert sum(right.columns["kind"].looked_at.values()) == right.total > right.looked_at
    wrong = [Row(**{**vars(row), "label": 1}) for row in known]
    unsure = check_of(Known(wrong), images=None)
    assert sum(unsure.columns["kind"].looked_at.values()) == unsure.looked_at


def folders(folder: Path, **files: Sequence[tuple[str, np.ndarray]]) -> DatasetCheck:
    """The check of `<folder>/<split>/ash|elm/*`; `files` by split."""
    for split, pictures in files.items():
        for name, picture in pictures:
            save(folder / split / name, picture)
    return check_of(reader="folders", root=str(folder), images=None, size=(12, 16))


def test_the_same_picture_in_two_splits_is_found_also_where_it_was_saved_anew(tmp_path: Path) -> None:
    train = [(f"{label}/{number}.png", noise(number)) for number, label in enumerate(["ash", "elm"] * 10)]
    train += [("ash/again.png", noise(2))]
    test = [("ash/copy.png", noise(4)), ("elm/anew.bmp", noise(5)), ("elm/own.png", noise(50))]
    check = folders(tmp_path, train=train, test=test)
    assert check.copies.across == 4  # two pictures, each in two splits
    assert check.copies.within == 1
    assert any("copy.png" in pair and "/4.png" in pair for pair in check.copies.pairs)
    assert any("anew.bmp" in pair and "/5.png" in pair for pair in check.copies.pairs)
    assert any("stand in more than one split" in text for text in check.warnings)
    assert "(test)" in text_of(check)


def test_files_are_compared_over_rows_that_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SECONDS", 1e-9)
    monkeypatch.setattr(sample, "STEPS", (4,))
    monkeypatch.setattr(sample, "LEAST", 1)
    train = [(f"{label}/{number:02}.png", noise(number)) for number, label in enumerate(["ash", "elm"] * 20)]
    check = folders(tmp_path, train=train, test=[(f"ash/{n}.png", noise(n if n == 31 else 90 + n)) for n in range(35)])
    assert check.looked_at < 10
    assert check.copies.across == 2
    assert "exact files among all images" in text_of(check)


def test_unlike_shapes_are_pointed_out(tmp_path: Path) -> None:
    wide = [(f"{label}/{number}.png", noise(number, (10, 40, 3))) for number, label in enumerate(["ash", "elm"] * 9)]
    check = folders(tmp_path, train=wide)
    (said,) = [text for text in check.warnings if "ratio" in text]
    assert "3.0 times" in said
    assert "datasets.tiny.size [7, 28]" in said


def column_check(column: Column, *facts: Any, complete: bool = True, least: int = 0, **others: Sequence[Any]) -> Any:
    by_split = {"train": list(facts), "val": [], "test": [], **others}
    return check_column(column, by_split, complete=complete, size=(32, 32), least=least)


def field(low: float, high: float, labelled: int = 9) -> FieldFacts:
    some = np.linspace(low, high, 5, dtype=np.float32) if labelled else np.array([], dtype=np.float32)
    return FieldFacts(labelled=labelled, pixels=10, low=low, high=high, some=some)


TEN = tuple(f"c{index}" for index in range(10))
BOX = np.array([[0, 0, 2, 20, 0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("column", "facts", "expected"),
    [
        (Column(layout="class", classes=TEN), [0, 1, 1, None], "no training image for 8 of 10 classes: c2, c3"),
        (Column(layout="class", classes=TEN), [3, 3], "all training images are c3"),
        (Column(layout="class", classes=TEN), [None, None], "no image of train has a label"),
        (Column(layout="flags", classes=("x", "y")), [[1, -1], [0, -1]], "y has no label in any of the 2 training"),
        (Column(layout="flags", classes=("x", "y")), [[1, 0], [0, 0]], "y is yes in none of the 2 training images"),
        (Column(layout="flags", classes=("x", "y")), [[1, 1], [0, 1]], "y is yes in all of the 2 training images"),
        (Column(layout="mask", classes=TEN), [{0: 9, IGNORE: 1}], "hold only 0 and 255, but there are 10 classes"),
        (Column(layout="mask", classes=TEN), [{4: 9, IGNORE: 1}], "every labelled pixel is c4"),
        (Column(layout="mask", classes=TEN), [{4: 9, 5: 1}], "no training pixel for 8 of 10 classes"),
        (Column(layout="mask", classes=TEN), [{IGNORE: 9}], "no image of train has a label"),
        (Column(layout="field", scale=0.001, unit="m"), [field(0, 0, 0)], "no image of train has a label"),
        (Column(layout="field", scale=0.001, unit="m"), [field(2, 2)], "every labelled pixel is 2 m"),
        (
            Column(layout="field", scale=0.001, unit="m"),
            [field(1, 65.535)],
            "values reach 65.53 m, the most that 16 bits hold at scale 0.001; where that means",
        ),
        (
            Column(layout="field", scale=0.001, unit="m"),
            [field(1, 80)],
            "values reach 80 m, and are cut off at 65.53 m",
        ),
        (Column(layout="normals"), [NormalFacts(labelled=8, pixels=10, away=8)], "point away from the camera"),
        (Column(layout="instances"), [{0: 9, IGNORE: 1}], "no image has an instance"),
        (Column(layout="points", classes=("a",)), [np.array([[40.0, 3, 0]])], "1 of 1 points lie outside"),
        (Column(layout="points", classes=("a",)), [np.zeros((0, 3))], "no image has any points"),
        (Column(layout="boxes", classes=("a",)), [BOX], "100.0% of the boxes have a side under 4 pixels"),
        (Column(layout="boxes", classes=("a", "b", "c")), [BOX], "no box in a training image for 2 of 3 classes"),
    ],
)
def test_what_looks_wrong_is_said(column: Column, facts: Sequence[Any], expected: str) -> None:
    assert any(expected in text for text in column_check(column, *facts).warnings)


@pytest.mark.parametrize(
    ("column", "facts"),
    [
        (Column(layout="class", classes=("a", "b")), [0, 1, None]),
        (Column(layout="flags", classes=("x",)), [[1], [0], None]),
        (Column(layout="mask", classes=("a", "b", "c")), [{0: 5, 1: 3, 2: 1, IGNORE: 1}]),
        (Column(layout="mask", classes=("no", "edge")), [{0: 5, 1: 3}]),
        (Column(layout="field", scale=0.001, unit="m"), [field(0.5, 9)]),
        (Column(layout="normals"), [NormalFacts(labelled=80, pixels=100, away=3)]),
        (Column(layout="instances"), [{0: 9, 4: 1}]),
        (Column(layout="points", classes=("a",)), [np.array([[4.0, 3, 0]])]),
        (Column(layout="boxes", classes=("a",)), [np.array([[0.0, 0, 20, 20, 0]])]),
    ],
)
def test_what_is_in_order_gives_no_warning(column: Column, facts: Sequence[Any]) -> None:
    assert not column_check(column, *facts).warnings


def test_rare_classes_are_named_and_a_sample_proves_nothing_missing() -> None:
    column = Column(layout="class", classes=TEN)
    facts = [0] * 9 + [1] * 9 + [2] * 3
    rare = column_check(column, *facts, least=5)
    assert any("fewer than min_class_count 5, so unlabelled: c2 3" in line for line in rare.lines)
    assert not rare.warnings  # they count as unlabelled, all ten of them
    sampled = column_check(column, *facts, complete=False)
    assert any("no training image among those looked at for 7 of 10" in line for line in sampled.lines)
    assert not sampled.warnings


def test_a_thousand_classes_take_a_few_lines() -> None:
    column = Column(layout="class", classes=tuple(f"class {index}" for index in range(1000)))
    facts = [index for index in range(1000) for _ in range(1 + index % 7)]
    check = column_check(column, *facts)
    assert len(check.lines) < 5
    assert sum(map(len, check.lines)) < 400


def test_labels_are_counted_as_files_hold_them_before_they_are_made_small(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[0, 0], mask[5:9] = 2, IGNORE
    save(tmp_path / "mask.png", mask)
    save(tmp_path / "image.png", noise(1, (64, 64, 3)))
    (tmp_path / "all.csv").write_text("image,parts:mask:a|b|c\nimage.png,mask.png\n")
    check = check_of(reader="manifest", root=str(tmp_path / "all.csv"), images=None, size=(8, 8), val=0, test=0)
    assert check.columns["parts"].numbers["shares"][2] == pytest.approx(1 / (64 * 60))


def test_a_row_that_is_looked_at_knows_its_picture() -> None:
    source = Numbers(number_source.rows(3), size=(8, 12))
    first, second, third = look(source, COLUMNS, SIZE, source.rows())
    assert isinstance(first, Seen)
    assert isinstance(second, Seen)
    assert isinstance(third, Seen)
    assert len({first.digest, second.digest, third.digest}) == 3
    assert first.shape == (8, 12)
    turned = Numbers(number_source.rows(1), size=(12, 8))
    (other,) = look(turned, COLUMNS, SIZE, turned.rows())
    assert isinstance(other, Seen)
    assert other.digest != first.digest  # as many equal pixels in another shape


def declared(**columns: Column) -> dict[str, Any]:
    class Some(Numbers):
        def columns(self) -> Mapping[str, Column]:
            return columns

    return {"tiny": declare("tiny", settings(), Some([]))}


EVERY = {**COLUMNS, "edges": Column(layout="mask", classes=("none", "edge")), "up": Column(layout="normals")}


@pytest.mark.parametrize(("name", "column"), EVERY.items())
def test_kinds_fit_where_their_task_can_be_made(name: str, column: Column) -> None:
    found = fitting_kinds(name, column)
    for kind in TASKS:
        spec = TaskSpec(name="t", kind=kind, dataset="d", column_name=name, column=column)
        if kind in found:
            TASKS[kind](spec)
        else:
            with pytest.raises(ValueError, match=r"learns from|needs"):
                TASKS[kind](spec)
    assert found[0] == {"edges": "edges", "mask": "segmentation"}.get(name, found[0])


def test_lines_to_paste_make_tasks_that_can_be_trained() -> None:
    manifests = declared(**EVERY, **{"yes": COLUMNS["kind"], "5: odd": COLUMNS["field"], "scene": COLUMNS["mask"]})
    config = settings()  # its task `scene` learns from the column of that name; `depth` finds none
    lines = list(unused_columns(config, manifests))
    pasted = YAML(typ="safe").load("\n".join(lines))
    assert len(pasted) == len(lines) == len(EVERY) + 2
    whole = Config.model_validate({**config.model_dump(), "tasks": pasted})
    assert not list(unused_columns(whole, manifests)) or "scene" not in pasted
    for name, task in whole.tasks.items():
        column = manifests["tiny"].columns[task.column or name]
        TASKS[task.kind](
            TaskSpec(name=name, kind=task.kind, dataset="tiny", column_name=task.column or name, column=column)
        )


def test_wrong_tasks_stop_with_what_would_fit() -> None:
    manifests = declared(scene=COLUMNS["mask"], depths=COLUMNS["field"])
    assert any(
        "no column 'depth'" in text and "Did you mean depths?" in text for text in study_stops(settings(), manifests)
    )
    (wrong,) = study_stops(settings(tasks=("scene",)), manifests)
    assert "layout 'mask'" in wrong
    assert wrong.endswith("segmentation would fit")
    assert not study_stops(settings(), {})  # its data set could not be read: nothing is known of the tasks


@pytest.mark.filterwarnings(DECODING)
def test_the_sheet_draws_every_column_and_rows_that_are_labelled(numbers: DatasetCheck) -> None:
    figure = label_sheet(numbers)
    assert figure is not None
    words = {text.get_text().split(":")[0] for text in figure.axes[0].texts}
    assert {name for name in COLUMNS if name not in ("kind", "flags")} <= words
    drawn = [labels_of(int(row.id)) for row in numbers.shown]
    assert all(any(label[name] is not None for label in drawn) for name in COLUMNS)
    split = assign_splits(numbers.source.rows(), val=0.2, test=0.2, seed=0)
    assert {row.id for row in numbers.shown} <= {row.id for row in split["train"]}


def test_the_panels_are_those_of_the_columns(numbers: DatasetCheck) -> None:
    figure = value_sheet(numbers)
    assert figure is not None
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["kind", "mask", "field", "points", "boxes", "boxes", "share of yes"]


def test_many_answers_are_named_in_part_and_drawn_in_full() -> None:
    class Many(Numbers):
        def columns(self) -> Mapping[str, Column]:
            return {"many": Column(layout="flags", classes=tuple(f"f{index}" for index in range(80)))}

        def load(self, row: Row) -> Example:
            flags = [int(int(row.id) % (flag + 2) == 0) for flag in range(80)]
            return Example(image=super().load(row).image, labels={"many": flags})

    check = check_of(Many(number_source.rows(60)), images=None)
    figure = value_sheet(check)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["share of yes"] * 2 + ["share of yes, all"]
    assert len(check.columns["many"].lines) == 2


def test_the_page_holds_texts_and_pictures_safely(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a b.png")
    page = check_page("check-data", {"a b": "1 < 2 & <script>"}, {"a b": ["a b.png"]})
    assert "1 &lt; 2 &amp; &lt;script&gt;" in page
    assert 'src="a%20b.png"' in page
