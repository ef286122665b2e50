"""A trained network on your own images.    python -m stages.predict <bundle> <images or folders...>    (seconds)

Prints a line per image and task, and draws the first images beside their predictions into one picture, predictions.png.
<bundle> is a folder that a training stage left, such as artifacts/branched/shared-s0. Of a folder all images are taken,
those in its sub-folders too. With --json the predictions go to a file instead (see `pipeline.predictions`): classes
and probabilities, boxes and points in pixels of your image; masks as PNG of class indices and other maps as .npy in a
folder of the same name. A file that can't be read is named, the others go on; the command then ends with 1.
"""

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from models.bundle import Predictor, load
from models.bundle_files import written_whole
from models.delta_files import folder_name
from models.predicting import resized
from models.tasks import Task
from pipeline.predicting import Predicted, image_files, predict_files
from pipeline.prediction_sheet import draw, row_of
from pipeline.predictions import values_of, write_map
from stages.session import start

DRAWN = 32  # images of a drawing, unless --drawn says otherwise
EVERY_S = 5.0  # between two lines of progress


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parse(arguments)
    for option, path in (("--out", asked.out), ("--json", asked.json)):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{option} {path}: there is no folder {path.parent}")
    paths = image_files(asked.images)
    predictor = load(asked.bundle)
    if asked.task is not None:
        predictor = predictor.only(asked.task)
    cells, rows, unread = _run(predictor, paths, asked)
    if asked.json is not None:
        _write(asked.json, {"bundle": str(asked.bundle), "tasks": _tasks(predictor), "images": rows, "unread": unread})
    done = len(paths) - len(unread)
    made = [str(asked.json)] if asked.json is not None else []
    if cells:
        draw(cells, 1 + len(predictor.network.tasks)).save(asked.out)
        made.append(str(asked.out) + (f" (the first {asked.drawn})" if done > asked.drawn else ""))
    print(f"predict: {done} images -> {', '.join(made) or 'nothing drawn'}")
    if unread:
        print(f"predict: {len(unread)} of {len(paths)} files can't be read", file=sys.stderr)
        sys.exit(1)


def _run(
    predictor: Predictor, paths: Sequence[Path], asked: Namespace
) -> tuple[list[Tensor], list[dict[str, Any]], list[dict[str, str]]]:
    """Predict all files; give the drawing's cells, one row for JSON an image, and what can't be read."""
    cells: list[Tensor] = []
    rows, unread, tasks = [], [], predictor.network.tasks
    tell = _progress(len(paths))
    for number, found in enumerate(predict_files(predictor, paths, asked.batch)):
        if found.image is None:
            print(f"predict: {found.problem}", file=sys.stderr)
            unread.append({"file": str(found.path), "why": found.problem})
            continue
        if asked.json is None:
            for name, prediction in found.predictions.items():
                print(f"{found.path}  {name}: {tasks[name].describe(prediction)}")
        else:
            rows.append(_values(found, tasks, asked.json.with_suffix(""), number))
            tell(number + 1)
        if number - len(unread) < asked.drawn:
            picture = resized(found.image, predictor.network.spec.backbone.size)
            cells += row_of(found.path.name, picture, found.predictions, tasks)
    return cells, rows, unread


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m stages.predict", description="Run a trained network on images.")
    parser.add_argument("bundle", type=Path, help="a folder with spec.json and weights.safetensors")
    parser.add_argument("images", type=Path, nargs="+", help="image files of any size, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions.png"), help="the drawing (default: %(default)s)")
    parser.add_argument("--drawn", type=int, default=DRAWN, help="draw so many images, 0: none (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, help="write the predictions here, maps beside it, instead of printing them"
    )
    parser.add_argument("--task", help="predict this task alone")
    parser.add_argument("--batch", type=int, default=16, help="images at a time (default: %(default)s)")
    asked = parser.parse_args(arguments)
    if asked.batch < 1:
        raise ValueError(f"--batch {asked.batch}: at least one image goes through the network at a time")
    return asked


def _progress(total: int) -> Callable[[int], None]:
    """A line every few seconds, with how long the rest will take at the pace so far."""
    started = said = time.monotonic()

    def tell(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= EVERY_S and done < total:
            said = now
            left = (now - started) / done * (total - done)
            print(f"predict: {done:,} of {total:,} images, {left:.0f} s left", file=sys.stderr, flush=True)

    return tell


def _tasks(predictor: Predictor) -> dict[str, Any]:
    tasks = predictor.network.tasks
    return {name: {"kind": t.spec.kind, "classes": list(t.classes), "unit": t.unit} for name, t in tasks.items()}


def _values(found: Predicted, tasks: Mapping[str, Task], folder: Path, number: int) -> dict[str, Any]:
    """One image's predictions as JSON has them; its maps go to the folder's <task>/<number>-<name>."""
    assert found.image is not None
    size = (found.image.height, found.image.width)
    predictions = {}
    for name, prediction in found.predictions.items():
        values, picture = values_of(tasks[name], prediction, size)
        if picture is not None:
            file = write_map(picture, folder / folder_name(name) / f"{number:06d}-{found.path.stem}")
            values |= {"file": file.relative_to(folder.parent).as_posix(), "shape": list(picture.shape)}
        predictions[name] = values
    return {"file": str(found.path), "height": size[0], "width": size[1], "predictions": predictions}


def _write(path: Path, value: Any) -> None:
    with written_whole(path) as draft:
        draft.write_text(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    start(main)
