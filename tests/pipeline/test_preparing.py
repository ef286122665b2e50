"""What `prepare` stores: every row in order, honest splits, clear words about bad rows."""

import os
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from models.spec import IGNORE, Column
from pipeline import encoding, shard_writing
from pipeline.artifacts import read_manifests, shards, writing
from pipeline.datasets import BadExample, Example, Row
from pipeline.label_counts import count, no_counts, shares
from pipeline.loading import Split
from pipeline.preparing import assign_splits
from tests.pipeline.cases import prepare, settings
from tests.pipeline.number_source import COLUMNS, SIZE, Numbers, labels_of, rows


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def ids(folder: Path, split: str) -> list[str]:
    return Split(dataset="tiny", paths=shards("tiny", split, folder), size=SIZE, columns={}).ids


def test_manifest_says_what_was_stored(tmp_path: Path) -> None:
    manifest, said = prepare(tmp_path, Numbers(rows(60)), settings({"images": None}))
    assert read_manifests(tmp_path)["tiny"] == manifest
    assert manifest.counts == {split: len(ids(tmp_path, split)) for split in ("train", "val", "test")}
    assert sorted((name for split in manifest.counts for name in ids(tmp_path, split)), key=int) == [
        str(i) for i in range(60)
    ]
    levels = np.array([int(name) for name in ids(tmp_path, "train")]) / 255
    np.testing.assert_allclose(manifest.mean, levels.mean(), atol=1e-5)
    np.testing.assert_allclose(manifest.std, levels.std(), atol=1e-5)
    assert any("60 of 60 images" in line for line in said)


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    config = settings({"images": None})
    found = [
        prepare(tmp_path / name, source, config)[0].fingerprint
        for name, source in {
            "once": Numbers(rows(40)),
            "again": Numbers(rows(40)),
            "more": Numbers(rows(41)),
            "other": Numbers([*rows(39), *rows(42)[41:]]),
        }.items()
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 3


@pytest.mark.parametrize("seed", range(3))
def test_a_group_falls_on_one_side(seed: int) -> None:
    listed = [row for twin in range(3) for row in rows(300, split=None) if int(row.id) % (twin + 1) == 0]
    split = assign_splits(listed, val=0.2, test=0.1, seed=seed)
    assert Counter(row.group for part in split.values() for row in part) == Counter(row.group for row in listed)
    groups = [{row.group for row in part} for part in split.values()]
    assert not any(a & b for i, a in enumerate(groups) for b in groups[:i])
    assert len(groups[1]) / 300 == pytest.approx(0.2, abs=0.07)
    assert len(groups[2]) / 300 == pytest.approx(0.1, abs=0.06)


def test_a_row_stays_where_it_was_when_others_come() -> None:
    few, many = (assign_splits(rows(count), val=0.2, test=0.2, seed=1) for count in (50, 80))
    for split, part in few.items():
        assert part == [row for row in many[split] if int(row.id) < 50]


def test_official_splits_are_kept_and_val_is_carved_from_train() -> None:
    listed = [*rows(200, split="train"), *rows(50, split="test")]
    split = assign_splits(listed, val=0.2, test=0.5, seed=0)
    assert split["test"] == listed[200:]
    assert sorted((*split["train"], *split["val"]), key=listed.index) == listed[:200]
    assert 20 < len(split["val"]) < 60
    official = [*listed, *rows(10, split="val")]
    whole = assign_splits(official, val=0.2, test=0.5, seed=0)
    assert [len(whole[name]) for name in ("train", "val", "test")] == [200, 10, 50]


def test_no_images_for_a_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tiny: no val images; raise datasets\.tiny\.val"):
        prepare(tmp_path, Numbers(rows(40)), settings({"images": None, "val": 0.0}))


@pytest.mark.parametrize("batch", [8, 256])
def test_rare_classes_are_dropped_and_their_rows_unlabelled(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writing, "ROWS", batch)
    monkeypatch.setattr(shard_writing, "PARTS", 1)
    listed = [*rows(40, split="train"), *rows(60, split="val")[40:], *rows(80, split="test")[60:]]
    source = Numbers(listed)
    before, _ = prepare(tmp_path / "all", source, settings({"images": None}))
    after, _ = prepare(tmp_path / "some", source, settings({"images": None, "min_class_count": 6}))
    assert before.columns["kind"].classes == ("a", "b", "c", "d")
    assert after.columns["kind"].classes == ("a", "b", "c"), "d has 4 rows of 40"
    assert before.fingerprint != after.fingerprint
    kinds = [kind for index in range(40) if (kind := labels_of(index)["kind"]) not in (None, 3)]
    assert after.columns["kind"].shares == tuple(round(kinds.count(kind) / len(kinds), 6) for kind in range(3))
    for split in ("train", "val", "test"):
        raw, kept = (
            Split(dataset="tiny", paths=shards("tiny", split, tmp_path / name), size=SIZE, columns=COLUMNS)
            .table["kind"]
            .to_pylist()
            for name in ("all", "some")
        )
        assert 3 in raw
        assert kept == [None if value == 3 else value for value in raw]


def test_columns_know_the_shares_of_their_classes_among_training_images(tmp_path: Path) -> None:
    """Each share against a count over the labels themselves; what is unlabelled counts for nothing."""
    listed = [*rows(30, split="train"), *rows(40, split="val")[30:], *rows(50, split="test")[40:]]
    columns = prepare(tmp_path, Numbers(listed), settings({"images": None}))[0].columns
    labels = [labels_of(index) for index in range(30)]
    kinds = [item["kind"] for item in labels if item["kind"] is not None]
    assert columns["kind"].shares == tuple(round(kinds.count(kind) / len(kinds), 6) for kind in range(4))
    flags = np.array([item["flags"] for item in labels if item["flags"] is not None])
    wanted = [(flags[:, at] == 1).sum() / (flags[:, at] != -1).sum() for at in range(3)]
    assert columns["flags"].shares == tuple(np.round(wanted, 6))
    pixels = np.concatenate([item["mask"].ravel() for item in labels if item["mask"] is not None])
    wanted = [(pixels == at).sum() / (pixels != IGNORE).sum() for at in range(3)]
    assert columns["mask"].shares == tuple(np.round(wanted, 6))
    assert not any(columns[name].shares for name in ("field", "ids", "points", "boxes"))


def test_shares_of_what_has_no_labels() -> None:
    column = {"kind": COLUMNS["kind"], "flags": COLUMNS["flags"]}
    counts = no_counts(column)
    assert [shares(counts[name]) for name in column] == [(), ()]
    count(counts, column, {"kind": None, "flags": [1, -1, 0]})
    assert [shares(counts[name]) for name in column] == [(), (1.0, 0.0, 0.0)]


def test_classes_that_no_training_image_has_are_named(tmp_path: Path) -> None:
    """Every tenth row has class d; one that only other splits have can't be learned either."""
    listed = [replace(row, split="train" if int(row.id) % 10 else "val") for row in rows(50)]
    source = Numbers([*listed, *rows(60, split="test")[50:]])
    _, said = prepare(tmp_path / "some", source, settings({"images": None}))
    missing = [line for line in said if "no training image" in line]
    assert missing == ["tiny: no training image has 1 of the 4 classes of kind: d"]
    _, said = prepare(tmp_path / "dropped", source, settings({"images": None, "min_class_count": 1}))
    assert not any("no training image" in line for line in said)


def test_without_links_shards_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings({"images": None})
    linked, _ = prepare(tmp_path / "linked", Numbers(rows(60)), config)

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    copied, _ = prepare(tmp_path / "copied", Numbers(rows(60)), config)
    assert copied == linked
    assert files(tmp_path / "copied") == files(tmp_path / "linked")


def test_an_id_that_stands_there_twice_is_named(tmp_path: Path) -> None:
    message = "data set tiny: two rows have the id '7': list.csv row 8, and list.csv row 8"
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, Numbers([*rows(40), rows(8)[7]]), settings({"images": None}))


def test_a_row_without_a_split_goes_where_its_copies_are() -> None:
    """Whatever the seed: a copy of a test image must not be learned from."""
    listed = [
        Row(id="0", origin="", group="same", split="test"),
        Row(id="1", origin="", group="same"),
        Row(id="2", origin="", group="other", split="val"),
        Row(id="3", origin="", group="other"),
        Row(id="4", origin="", group="alone", split="train"),
        Row(id="5", origin="", group="another"),
    ]
    for seed in range(20):
        found = assign_splits(listed, val=0.3, test=0.3, seed=seed)
        assert {split: [row.id for row in found[split]] for split in found} == {
            "train": ["4", "5"],
            "val": ["2", "3"],
            "test": ["0", "1"],
        }


def test_no_class_left_to_learn_is_refused(tmp_path: Path) -> None:
    config = settings({"images": None, "min_class_count": 1000}, tasks=("kind",))
    with pytest.raises(ValueError, match=r"no class of kind has 1000 training images; lower datasets.tiny.min_class"):
        prepare(tmp_path, Numbers(rows(60)), config)


def test_bad_rows_stop_it_with_names_and_counts(tmp_path: Path) -> None:
    source = Numbers(rows(40), bad=[str(i) for i in range(7)], out=["20"])
    with pytest.raises(ValueError) as caught:
        prepare(tmp_path, source, settings({"images": None}))
    message = str(caught.value)
    assert "tiny: 8 of 40 rows" in message
    assert message.count("list.csv row") == 5
    assert "not an image" in message
    assert "prepare.on_bad: skip" in message


def test_bad_rows_are_skipped_and_listed(tmp_path: Path) -> None:
    source = Numbers(rows(40), bad=["3"], out=["20"])
    manifest, said = prepare(tmp_path, source, settings({"images": None}, prepare={"on_bad": "skip"}))
    assert sum(manifest.counts.values()) == 38
    assert sorted(manifest.skipped) == [
        "list.csv row 21: kind: label 9, but there are 4 classes (0 to 3)",
        "list.csv row 4: images/3.png: not an image",
    ]
    assert any("2 of 40 rows skipped" in line for line in said)


@pytest.mark.parametrize(
    ("layout", "value", "message"),
    [
        ("class", -1, "label -1"),
        ("class", 3, "label 3, but there are 3 classes"),
        ("class", "z", "'z' is none of the 3 classes"),
        ("flags", [0, 1], "2 flags for 3 classes"),
        ("flags", [0, 1, 2], "flag 2"),
        ("mask", np.array([[0, 3], [255, 1]]), "label 3"),
        ("normals", np.zeros((4, 4)), r"the shape \[height, width, 3\], not \[4, 4\]"),
        ("normals", np.full((2, 2, 3), np.nan), "a value is not finite"),
        ("normals", np.array([[[0, 0, 0], [0, 0, 1], [0, 1, 1]]]), "1 normals are no unit vectors, the first .* 1.41"),
        ("points", np.array([[1.0, 2.0, 3.0]]), "label 3"),
        ("boxes", np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]), "label 5"),
    ],
)
def test_label_out_of_range(layout: str, value: object, message: str) -> None:
    column = Column(layout=layout, classes=("a", "b", "c"))
    with pytest.raises(BadExample, match=f"mine: .*{message}"):
        encoding.encode("mine", column, value)


@pytest.mark.parametrize("native", [(16, 64), (64, 32), (48, 40), (31, 33)])
def test_resizing_moves_image_maps_and_points_together(native: tuple[int, int]) -> None:
    """A bright quarter, its mask and a point in its middle stay one thing."""
    height, width = native
    image = np.zeros((*native, 3), dtype=np.uint8)
    image[height // 2 :, width // 2 :] = 255
    mask = (image[..., 0] > 0).astype(np.uint8)
    labels = {
        "mask": mask,
        "field": mask * 3.0,
        "points": np.array([[width * 0.75, height * 0.75, 1]]),
        "boxes": np.array([[width / 2, height / 2, width, height, 0]]),
    }
    labels["normals"] = mask[..., None] * np.array([0.6, 0.0, 0.8])
    columns = {**COLUMNS, "normals": Column(layout="normals")}
    out = encoding.resize(Example(image=image, labels=labels), columns, SIZE)
    assert out.image.shape == (*SIZE, 3)
    np.testing.assert_array_equal(out.labels["normals"], out.labels["mask"][..., None] * np.array([0.6, 0.0, 0.8]))
    bright = out.image[..., 0] > 127
    assert (bright != out.labels["mask"]).mean() < 0.05
    np.testing.assert_array_equal(out.labels["field"], out.labels["mask"] * 3.0)
    np.testing.assert_allclose(out.labels["points"], [[24, 24, 1]])
    np.testing.assert_allclose(out.labels["boxes"], [[16, 16, 32, 32, 0]])


@pytest.mark.parametrize("native", [(7, 5), (32, 32), (100, 33)])
def test_maps_are_never_blended(native: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).choice([0, 2, IGNORE], native).astype(np.uint8)
    image = np.zeros((*native, 3), dtype=np.uint8)
    out = encoding.resize(Example(image=image, labels={"mask": mask, "ids": None}), COLUMNS, SIZE)
    assert set(np.unique(out.labels["mask"])) <= {0, 2, IGNORE}
    assert out.labels["ids"] is None


def stopped(folder: Path, error: type[BaseException]) -> None:
    """A stage that is stopped half way."""
    with writing("stage", folder) as draft:
        (draft / "half").write_text("x")
        raise error("stopped")


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path, KeyboardInterrupt)
    assert not (tmp_path / "stage").exists()
    with writing("stage", tmp_path) as folder:
        assert not list(folder.iterdir())
        (folder / "whole").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["stage"], "what the killed stage left is cleared away"
    with pytest.raises(ValueError, match="stopped"):
        stopped(tmp_path, ValueError)
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["whole"], "it stays until a new one is whole"


def test_shards_hold_the_rows_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writing, "ROWS", 8)
    prepare(tmp_path, Numbers(rows(60)), settings({"images": None}))
    for split in ("train", "val", "test"):
        found = [int(name) for name in ids(tmp_path, split)]
        assert all(a < b for a, b in pairwise(found))
