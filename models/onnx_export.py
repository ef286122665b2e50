"""A trained network as an ONNX file. It needs the packages of the extra `onnx`, which requirements.lock leaves out.

The file has one input, `images`, uint8 [batch, 3, H, W], and one output for each task, named as the task; its metadata
`tasks.json` is what `models.export.about` says.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from models.bundle import Predictor
from models.bundle_files import written_whole
from models.export import ABOUT, about, export_program

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def refuse_without_onnx() -> None:
    """ValueError where a package that ONNX needs is missing."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        command = f".venv/bin/python -m pip install {' '.join(PACKAGES)}"
        raise ValueError(f"ONNX needs {', '.join(missing)}, not installed here; install them by: {command}")


def write_onnx(predictor: Predictor, path: Path) -> None:
    """Write a network as one .onnx file. ValueError for what `models.export.export_program` refuses."""
    refuse_without_onnx()
    program = torch.onnx.export(
        export_program(predictor),
        input_names=["images"],
        output_names=list(predictor.network.tasks),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[ABOUT] = json.dumps(about(predictor))
    with written_whole(path) as draft:
        program.save(draft, external_data=False)


def run_onnx(path: Path, images: Tensor) -> Mapping[str, Tensor]:
    """Map an ONNX file and images uint8 [B, 3, H, W] to {output: prediction}, on the CPU."""
    from onnxruntime import InferenceSession  # pyright: ignore[reportMissingImports]

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"images": images.numpy()})
    return {name: torch.from_numpy(values) for name, values in zip(names, found, strict=True)}
