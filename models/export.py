"""A trained network as a program that runs without this one: torch.export's .pt2, which torch alone loads, and ONNX.

    program = torch.export.load("network.pt2").module()      # import torch, and nothing else
    program(images)                                          # uint8 [B, 3, H, W] -> {task: prediction}

Shapes: B batch, H W height and width.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from models.bundle import Predictor
from models.bundle_files import written_whole
from models.sharing import SharedModel
from models.static_boxes import static_boxes
from models.static_network import static_network
from models.tasks import Task
from models.tasks.detection import Detection

ABOUT = "tasks.json"  # what stands beside the program: the image's size, each task's kind, classes and unit
TRACED = 2  # images; a batch of one would become a constant


class _Program(nn.Module):
    """Images uint8 [B, 3, H, W] of one size -> {task: prediction}."""

    def __init__(self, network: SharedModel, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.size, self.tasks = static_network(network, size), size, network.tasks

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.network(images)
        return {name: _predict(task, outputs[name].float(), self.size) for name, task in self.tasks.items()}


def _predict(task: Task, output: Tensor, size: tuple[int, int]) -> Tensor:
    """As `task.predict`; a detector's own looks at how many boxes there are."""
    return static_boxes(task, output, size) if isinstance(task, Detection) else task.predict(output)


def export_program(predictor: Predictor, task: str | None = None) -> ExportedProgram:
    """Map a network, or one task of it, to a program: uint8 [B, 3, H, W] -> {task: prediction}, for every B from 1 on.

    H and W are those that the network was trained on. ValueError for several tasks on images of different sizes, and
    for what `torch.export` can't follow.
    """
    predictor = predictor if task is None else predictor.only(task)
    size = image_size(predictor)
    images = torch.zeros(TRACED, 3, *size, dtype=torch.uint8, device=predictor.network.mean.device)
    try:
        with torch.no_grad():
            program = torch.export.export(
                _Program(predictor.network, size).eval(),
                (images,),
                dynamic_shapes=({0: Dim("batch", min=1)},),
                strict=True,  # Python's len() of a tensor would be a constant else
            )
    except Exception as error:  # whatever a layer that it can't follow does to it
        name = predictor.network.spec.backbone.name
        raise ValueError(f"torch.export can't follow this network ({name}): {_first_line(error)}") from error
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    return program


def image_size(predictor: Predictor) -> tuple[int, int]:
    """Map a network to the height and width of its tasks' images. ValueError where they have several."""
    spec = predictor.network.spec
    sizes = {task.name: task.size or spec.backbone.size for task in spec.tasks}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {height}x{width}" for name, (height, width) in sizes.items())
        raise ValueError(f"the tasks' images differ in size ({found}): a program takes one; export a task at a time")
    return next(iter(sizes.values()))


def about(predictor: Predictor) -> dict[str, Any]:
    """Map a network to what its program does not say of itself, as a JSON-able value."""
    tasks = {
        name: {"kind": task.spec.kind, "classes": list(task.classes), "unit": task.unit}
        for name, task in predictor.network.tasks.items()
    }
    height, width = image_size(predictor)
    return {"images": {"type": "uint8", "shape": ["batch", 3, height, width], "colours": "RGB"}, "tasks": tasks}


def write_program(predictor: Predictor, path: Path) -> None:
    """Write a network as a .pt2 file, with `about` as its extra file `tasks.json`."""
    program = export_program(predictor)
    with written_whole(path) as draft, draft.open("wb") as file:
        torch.export.save(program, file, extra_files={ABOUT: json.dumps(about(predictor))})


def difference(tasks: Mapping[str, Task], one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Map two networks' predictions to how far they are apart at most over the tasks of the first, see `Task.apart`."""
    return max(tasks[name].apart(one[name], other[name]) for name in one)


def random_images(predictor: Predictor, batches: Sequence[int]) -> list[Tensor]:
    """Map batch sizes to random images for a network, always the same."""
    draw = torch.Generator().manual_seed(0)
    size = image_size(predictor)
    return [torch.randint(0, 256, (count, 3, *size), generator=draw, dtype=torch.uint8) for count in batches]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
