"""Predictions from the command line: what is printed, what is drawn, what a user's mistake looks like."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import bundle
from models.sharing import SHARING
from models.spec import BackboneSpec, ModelSpec
from stages import predict
from stages.predict import CAPTION, CELL
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
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    out = ("--out", tmp_path / "drawn.png")
    assert "nowhere is no bundle" in refused(capsys, tmp_path / "nowhere", *images, *out)
    assert "notes.txt: not an image" in refused(capsys, trained, images[0], text, *out)
    assert "absent.png: not found" in refused(capsys, trained, tmp_path / "absent.png", *out)
    assert "no task 'zoom'; this network has my classification" in refused(
        capsys, trained, *images, "--task", "zoom", *out
    )
    assert "there is no folder" in refused(capsys, trained, *images, "--out", tmp_path / "no" / "drawn.png")
    assert not (tmp_path / "drawn.png").exists()
