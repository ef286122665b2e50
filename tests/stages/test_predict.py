"""Predictions from the command line: what is printed, what is drawn, what a user's mistake looks like."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import bundle
from models.predicting import predict_images
from models.sharing import SHARING
from models.spec import BackboneSpec, ModelSpec
from pipeline.datasets.files import read_rgb
from pipeline.prediction_sheet import CAPTION, CELL
from stages import predict
from stages.session import start
from tests.models.task_cases import COLUMNS, spec

SIZE = (32, 32)
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with one task of every kind and random weights."""
    torch.manual_seed(0)
    model = ModelSpec(
        strategy="branched",
        backbone=BackboneSpec(name="test_byobnet", locations=2, size=SIZE),
        tasks=tuple(spec(kind, name=f"my {kind}") for kind in COLUMNS),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        groups=((0,) * len(COLUMNS),) * 2,
    )
    folder = tmp_path_factory.mktemp("trained")
    bundle.save(SHARING["branched"](model), folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A small colour image as PNG, a large grey one as JPEG."""
    draw = np.random.default_rng(0)
    paths = [tmp_path / "small.png", tmp_path / "large.jpg"]
    Image.fromarray(draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(paths[0])
    Image.fromarray(draw.integers(0, 256, (100, 70), dtype=np.uint8)).save(paths[1])
    return paths


def run(*arguments: object) -> None:
    predict.main([str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one message that a mistake gives."""
    with pytest.raises(SystemExit) as stopped:
        start(lambda: run(*arguments))
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


def test_a_line_for_each_image_and_task(
    trained: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drawn.png"
    run(trained, *images, "--out", out)
    *lines, last = capsys.readouterr().out.splitlines()
    expected = [f"{path}  my {kind}: " for path in images for kind in COLUMNS]
    assert len(lines) == len(expected)
    assert all(line.startswith(start) and len(line) > len(start) for line, start in zip(lines, expected, strict=True))
    assert str(out) in last


def test_what_is_printed_is_what_the_bundle_predicts(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "exact.png")
    chances = bundle.load(trained)(torch.from_numpy(pixels).permute(2, 0, 1)[None])["my classification"][0]
    run(trained, tmp_path / "exact.png", "--task", "my classification", "--out", tmp_path / "drawn.png")
    best = COLUMNS["classification"].classes[int(chances.argmax())]
    assert capsys.readouterr().out.splitlines()[0].endswith(f"my classification: {best} {float(chances.max()):.2f}")


def test_each_task_predicts_from_images_of_its_own_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"classification": (32, 32), "segmentation": (24, 40), "depth": (32, 32)}
    model = ModelSpec(
        strategy="branched",
        backbone=BackboneSpec(name="test_byobnet", locations=2, size=(32, 40), dynamic=True),
        tasks=tuple(replace(spec(kind, name=kind), size=size) for kind, size in sizes.items()),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        groups=((0, 0, 0),) * 2,
    )
    torch.manual_seed(0)
    bundle.save(SHARING["branched"](model), tmp_path / "trained")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    image.save(tmp_path / "exact.png")
    run(tmp_path / "trained", tmp_path / "exact.png", "--out", tmp_path / "drawn.png")
    lines = capsys.readouterr().out.splitlines()
    for (name, size), line in zip(sizes.items(), lines, strict=False):
        pixels = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        predictor = bundle.load(tmp_path / "trained").only(name)
        prediction = predictor(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])[name][0]
        assert line.endswith(f"{name}: {predictor.network.tasks[name].describe(prediction)}")


def test_the_drawing_has_a_row_an_image_and_a_column_a_task(trained: Path, images: list[Path], tmp_path: Path) -> None:
    whole, one = tmp_path / "whole.png", tmp_path / "one.png"
    run(trained, *images, "--out", whole)
    run(trained, *images, "--task", "my segmentation", "--out", one)
    gap = 2
    for path, columns in ((whole, 1 + len(COLUMNS)), (one, 2)):
        with Image.open(path) as drawn:
            assert drawn.size == (columns * (CELL + gap) + gap, 2 * (CELL + CAPTION + gap) + gap)
            left, right = (np.asarray(drawn.crop((at, CAPTION + gap, at + CELL, CELL))) for at in (gap, CELL + 2 * gap))
            assert left.std() > 10  # the image
            assert not np.array_equal(left, right)


def test_mistakes_come_as_one_message(
    trained: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, empty = ("--out", tmp_path / "drawn.png"), tmp_path / "empty"
    empty.mkdir()
    assert "nowhere is no bundle" in refused(capsys, tmp_path / "nowhere", *images, *out)
    assert "absent.png: not found" in refused(capsys, trained, images[0], tmp_path / "absent.png", *out)
    assert "empty: no image in this folder" in refused(capsys, trained, images[0], empty, *out)
    assert "no task 'zoom'; this network has my classification" in refused(
        capsys, trained, *images, "--task", "zoom", *out
    )
    assert "there is no folder" in refused(capsys, trained, *images, "--out", tmp_path / "no" / "drawn.png")
    assert "there is no folder" in refused(capsys, trained, *images, "--json", tmp_path / "no" / "out.json")
    assert "--batch 0" in refused(capsys, trained, *images, "--batch", "0", *out)
    assert not (tmp_path / "drawn.png").exists()


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_an_unreadable_image_is_named_and_the_others_go_on(
    trained: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: int
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    task = ("--task", "my classification", "--batch", batch, "--drawn", 1)
    run(trained, *images, *task, "--out", tmp_path / "whole.png")
    expected = capsys.readouterr().out.splitlines()[:-1]
    with pytest.raises(SystemExit) as stopped:
        start(lambda: run(trained, text, images[0], text, images[1], *task, "--out", tmp_path / "drawn.png"))
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:-1] == expected
    assert "2 images" in shown.out
    assert shown.err.count("notes.txt: not an image that can be read") == 1, "a file given twice is one"
    assert "1 of 3 files can't be read" in shown.err
    assert (tmp_path / "drawn.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    with pytest.raises(SystemExit):
        start(lambda: run(trained, text, "--out", tmp_path / "none.png"))
    assert not (tmp_path / "none.png").exists()


def test_folders_are_read_with_all_below_in_order(
    trained: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "many"
    names = ["b/2.PNG", "a.jpeg", "b/1.png", "c/d/e.webp", "notes.txt", "b/list.csv"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(folder / name, "PNG")
    run(trained, images[0], folder, folder / "a.jpeg", "--task", "my depth", "--out", tmp_path / "drawn.png")
    lines = capsys.readouterr().out.splitlines()[:-1]
    read = [images[0], *(folder / name for name in ("a.jpeg", "b/1.png", "b/2.PNG", "c/d/e.webp"))]
    assert [line.split("  ")[0] for line in lines] == [str(path) for path in read]


def test_json_holds_every_prediction_in_pixels_of_the_image(
    trained: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    run(trained, *images, "--json", out, "--drawn", 0)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1, "a file in place of lines"
    assert str(out) in shown[0]
    found = json.loads(out.read_text())
    assert found["unread"] == []
    assert {name: task["kind"] for name, task in found["tasks"].items()} == {f"my {kind}": kind for kind in COLUMNS}
    sizes = [(20, 30), (100, 70)]
    predictor = bundle.load(trained)
    for path, row, (height, width) in zip(images, found["images"], sizes, strict=True):
        assert (row["file"], row["height"], row["width"]) == (str(path), height, width)
        values = row["predictions"]
        (expected,) = predict_images(predictor, [Image.fromarray(read_rgb(path))])
        chances = expected["my classification"]
        named = {one["class"]: one["probability"] for one in values["my classification"]["top"]}
        assert named == pytest.approx(
            dict(zip(COLUMNS["classification"].classes, chances.tolist(), strict=True)), rel=1e-5
        )
        assert values["my classification"]["class"] == COLUMNS["classification"].classes[int(chances.argmax())]
        with Image.open(tmp_path / values["my segmentation"]["file"]) as mask:
            assert mask.size == (width, height)
            near = mask.resize((SIZE[1], SIZE[0]), Image.Resampling.NEAREST)
            assert np.isin(np.asarray(near), expected["my segmentation"].numpy()).all()
        depth = np.load(tmp_path / values["my depth"]["file"], allow_pickle=False)
        np.testing.assert_allclose(depth, expected["my depth"].numpy(), rtol=1e-5)
        assert values["my depth"]["min"] == pytest.approx(float(depth.min()), rel=1e-5)
        boxes = values["my detection"]["boxes"]
        assert len(boxes) == int((expected["my detection"][:, 4] >= 0).sum())
        assert all(0 <= b["box"][0] <= b["box"][2] <= width + 1e-3 for b in boxes)
        assert all(0 <= b["box"][1] <= b["box"][3] <= height + 1e-3 for b in boxes)
    assert not (tmp_path / "predictions.png").exists()


def test_progress_is_told_on_the_way(
    trained: Path,
    images: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predict, "EVERY_S", 0.0)
    more = ("--json", tmp_path / "found.json", "--task", "my depth", "--out", tmp_path / "drawn.png")
    run(trained, *images, *more)
    assert capsys.readouterr().err.startswith("predict: 1 of 2 images, ")
