"""A bundle as a program that runs without this one.    python -m stages.export <bundle> <out.pt2 | out.onnx>

Takes half a minute. A .pt2 file is torch.export's: torch alone loads it, of the release that wrote it or a later one. A
.onnx file needs the packages of the extra `onnx`, see pyproject.toml. Either maps uint8 [B, 3, H, W], for any number
of images B of the size that the network was trained on, to {task: prediction}. What is written is read again and
compared with the bundle.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.bundle import Predictor, load
from models.export import difference, image_size, random_images, write_program
from models.onnx_export import refuse_without_onnx, run_onnx, write_onnx
from stages.session import start

BATCHES = (1, 2, 5)
MOST_APART = 1e-4  # beyond rounding


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parse(arguments)
    if asked.out.suffix not in WRITERS:
        raise ValueError(f"{asked.out}: a program's file ends in {' or '.join(WRITERS)}")
    write, reader = WRITERS[asked.out.suffix]
    if asked.out.suffix == ".onnx":
        refuse_without_onnx()
    predictor = load(asked.bundle)
    if asked.task is not None:
        predictor = predictor.only(asked.task)
    images = random_images(predictor, BATCHES)
    write(predictor, asked.out)
    run = reader(asked.out)
    apart = max(difference(predictor.network.tasks, run(some), predictor(some)) for some in images)
    if not apart <= MOST_APART:
        asked.out.unlink()
        raise ValueError(f"{asked.out}: not kept, its predictions are {apart:.1e} away from the bundle's")
    height, width = image_size(predictor)
    print(f"export: {', '.join(predictor.network.tasks)} from uint8 [B, 3, {height}, {width}] -> {asked.out}")
    print(f"export: {asked.out.stat().st_size:,} bytes; at most {apart:.1e} away from the bundle, B = 1, 2, 5")


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m stages.export", description="Write a trained network as a program.")
    parser.add_argument("bundle", type=Path, help="a folder with spec.json and weights.safetensors")
    parser.add_argument("out", type=Path, help="the file to write, .pt2 or .onnx")
    parser.add_argument("--task", help="that task's network alone (default: all)")
    return parser.parse_args(arguments)


def _read_program(path: Path) -> Callable[[Tensor], Mapping[str, Tensor]]:
    program = torch.export.load(path).module()

    @torch.inference_mode()
    def run(images: Tensor) -> Mapping[str, Tensor]:
        return program(images)

    return run


def _read_onnx(path: Path) -> Callable[[Tensor], Mapping[str, Tensor]]:
    return lambda images: run_onnx(path, images)


Writer = Callable[[Predictor, Path], None]
Reader = Callable[[Path], Callable[[Tensor], Mapping[str, Tensor]]]
WRITERS: dict[str, tuple[Writer, Reader]] = {".pt2": (write_program, _read_program), ".onnx": (write_onnx, _read_onnx)}


if __name__ == "__main__":
    start(main)
