"""A bundle becomes a program by one command, which checks what it wrote."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from models import bundle
from models.export import difference, image_size, random_images
from models.onnx_export import PACKAGES, run_onnx
from stages import export
from stages.session import start
from tests.models.export_cases import NETWORKS

NO_ONNX = [name for name in PACKAGES if find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(NO_ONNX), reason=f"the extra `onnx` is not installed: {', '.join(NO_ONNX)}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    bundle.save(NETWORKS["branched"](), folder)
    return folder


def test_a_program_of_all_tasks_or_one(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictor = bundle.load(trained)
    for task in (None, "my depth"):
        out = tmp_path / f"{task}.pt2"
        export.main([str(trained), str(out), *(["--task", task] if task else [])])
        said = capsys.readouterr().out
        height, width = image_size(predictor)
        assert f"uint8 [B, 3, {height}, {width}]" in said
        assert f"{out.stat().st_size:,} bytes; at most" in said
        program = torch.export.load(out).module()
        (images,) = random_images(predictor, [3])
        with torch.inference_mode():
            found = program(images)
        assert list(found) == ([task] if task else list(predictor.network.tasks))
        whole = predictor(images)
        assert difference(predictor.network.tasks, found, {name: whole[name] for name in found}) <= 1e-5


@needs_onnx
@pytest.mark.filterwarnings("ignore")  # of onnxscript and onnxruntime
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_predicts_the_same(name: str, tmp_path: Path) -> None:
    bundle.save(NETWORKS[name](), tmp_path / "bundle")
    predictor, out = bundle.load(tmp_path / "bundle"), tmp_path / "network.onnx"
    export.main([str(tmp_path / "bundle"), str(out)])
    for images in random_images(predictor, (1, 2, 5)):
        assert difference(predictor.network.tasks, run_onnx(out, images), predictor(images)) <= 1e-4


def test_mistakes_come_as_one_message(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*asked: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            start(lambda: export.main([str(part) for part in asked]))
        assert stopped.value.code == 2
        return capsys.readouterr().err

    assert "a program's file ends in .pt2 or .onnx" in refused(trained, tmp_path / "out.pth")
    assert "is no bundle" in refused(tmp_path / "nowhere", tmp_path / "out.pt2")
    assert "no task 'zoom'" in refused(trained, tmp_path / "out.pt2", "--task", "zoom")
    monkeypatch.setattr("models.onnx_export.PACKAGES", ("onnx_that_nobody_has",))
    assert "ONNX needs onnx_that_nobody_has, not installed here" in refused(trained, tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"], "the logs of what failed"


def test_a_program_that_predicts_otherwise_is_not_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "difference", lambda *_: float("nan"))
    with pytest.raises(ValueError, match="not kept, its predictions are nan away from the bundle's"):
        export.main([str(trained), str(tmp_path / "out.pt2")])
    assert not list(tmp_path.iterdir())
