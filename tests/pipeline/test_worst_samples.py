"""The worst sheets show the images on which the chosen network loses most, by each image's own metric."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import rc_context

from models.bundle import load, save
from models.sharing import SHARING
from pipeline.report import worst_samples
from pipeline.report.pdf import pdf_of
from pipeline.report.samples import open_split
from pipeline.report.study import Study, read_study
from pipeline.report.style import STYLE, Drawing, panels
from pipeline.report.worst_samples import LEAST, MOST, chosen_bundle, draw_worst, images_looked_at
from tests.pipeline.cases import DECODING
from tests.pipeline.test_report import LABELS, artifacts

pytestmark = pytest.mark.filterwarnings(DECODING)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two tasks on eight images, a tree and single-task networks whose weights differ."""
    found = read_study(artifacts(tmp_path), tmp_path)
    for task in ("kind", "depth"):
        torch.manual_seed(len(task))
        network = SHARING["branched"](load(tmp_path / "pretrain" / task).network.spec)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
        save(network, tmp_path / "pretrain" / task)
    return found


def image_metric(path: Path, task: str, images: torch.Tensor, labels: np.ndarray, row: int) -> float:
    """One image's accuracy or root mean square error, by numpy."""
    prediction = load(path)(images[row : row + 1])[task][0].numpy()
    if task == "kind":
        return float(prediction.argmax() == labels[row])
    known = labels[row] > 0
    return float(np.sqrt(np.square(prediction.reshape(known.shape) - labels[row])[known].mean()))


@pytest.mark.parametrize("task", ["kind", "depth"])
def test_the_shown_are_the_worst(study: Study, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worst_samples, "SHOWN", 3)
    drawing = next(drawing for drawing in draw_worst(study, tmp_path) if drawing.rows[0]["task"] == task)
    split = open_split(study, "pets", "test", tmp_path, {task: LABELS[task]})
    batch = split.read(range(8))
    labels, ids = batch.labels[task].numpy(), split.ids
    labelled = [row for row in range(8) if task == "depth" or labels[row] >= 0]
    found = {row["id"]: row for row in drawing.rows}
    assert set(found) == {ids[row] for row in labelled}
    sign = 1 if task == "kind" else -1
    changes = {}
    for row in labelled:
        single = image_metric(tmp_path / "pretrain" / task, task, batch.images, labels, row)
        shared = image_metric(tmp_path / "branched" / "shared-s0", task, batch.images, labels, row)
        assert found[ids[row]]["single"] == pytest.approx(single, rel=1e-4)
        assert found[ids[row]]["value"] == pytest.approx(shared, rel=1e-4)
        changes[ids[row]] = sign * (shared - single)
    shown = {name for name, row in found.items() if row["shown"]}
    assert len(shown) == 3
    rest = [change for name, change in changes.items() if name not in shown]
    assert max(changes[name] for name in shown) <= min(rest) + 1e-6
    worse = sum(change < -1e-7 for change in changes.values())
    assert f"worse on {worse} " in drawing.caption
    assert f"of {len(labelled)} labelled ones among all 8 test images" in drawing.caption


def test_one_sheet_a_task_the_one_that_lost_most_first(study: Study, tmp_path: Path) -> None:
    losing = replace(study.baselines["kind"], test=2.0)
    drawings = list(draw_worst(replace(study, baselines={**study.baselines, "kind": losing}), tmp_path))
    assert [drawing.rows[0]["task"] for drawing in drawings] == ["kind", "depth"]
    assert [drawing.stem for drawing in drawings] == ["worst-1", "worst-2"]
    for drawing in drawings:
        assert drawing.section == "samples"
        drawing.figure.savefig(io.BytesIO(), format="png", dpi=30)


def test_the_network_is_the_best_on_validation_that_left_a_bundle(study: Study, tmp_path: Path) -> None:
    (tree,) = study.networks
    lost = replace(tree, name="lost", val=dict.fromkeys(study.tasks, (9.0, 9.0)), keys=("x",))
    found = chosen_bundle(replace(study, trees=[lost, tree]), tmp_path)
    assert found == (tree, tmp_path / "branched" / "shared-s0")
    assert chosen_bundle(study, tmp_path / "elsewhere") is None
    assert not list(draw_worst(study, tmp_path / "elsewhere"))


def test_larger_networks_look_at_fewer_images(study: Study) -> None:
    counts = []
    for flops in (1, 10**9, 10**12):
        row = replace(study.baselines["kind"], flops=flops)
        counts.append(images_looked_at(replace(study, baselines={**study.baselines, "kind": row}), "kind", 10_000))
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (MOST, LEAST)
    assert images_looked_at(study, "kind", 5) == 5


def line_drawing() -> Drawing:
    with rc_context(STYLE):
        figure, (axes,) = panels(1, columns=1, size=(4, 3))
        axes.plot([0, 1], [0, 1], label="Δ of a λ")
        axes.set_xlabel("parameters, × base")
        axes.legend()
    return Drawing(stem="x", section="budget", caption="", figure=figure)


def test_a_pdf_is_the_same_each_time_with_letters_as_truetype() -> None:
    one, other = pdf_of(line_drawing()), pdf_of(line_drawing())
    assert one == other
    assert one.startswith(b"%PDF")
    assert b"CreationDate" not in one
    assert b"/FontFile2" in one
    assert b"/Type3" not in one
    assert b"/Subtype /Image" not in one, "lines are no pixels"
