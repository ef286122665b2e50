"""A registered model at work: images as text -> predictions as JSON. It is shipped with the model.

MLflow loads it by the name of this module; nothing is unpickled. A row of a request is an image of any size as base64;
its answer maps each task to what `pipeline.predictions` says of it, and to its `map` where it has one.
"""

import base64
import binascii
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from models.bundle import Predictor, load
from models.predicting import predict_images
from pipeline.predictions import values_of

BATCH = 16  # images that go through a network at a time


class Served:
    """One or several networks that answer together, each for its own tasks."""

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self._predictors = predictors

    def predict(self, rows: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
        """Map a table's column `image` to one answer a row."""
        texts = list(rows["image"])
        answers: list[dict[str, Any]] = [{} for _ in texts]
        for begin in range(0, len(texts), BATCH):
            images = [decoded(text, row) for row, text in enumerate(texts[begin : begin + BATCH], begin)]
            for predictor in self._predictors:
                for row, found in enumerate(predict_images(predictor, images)):
                    size = (images[row].height, images[row].width)
                    answers[begin + row] |= {name: _value(predictor, name, one, size) for name, one in found.items()}
        return answers


def decoded(text: str, row: int) -> Image.Image:
    """Map an image file as base64 to the image. ValueError names the row of the request."""
    try:
        return Image.open(io.BytesIO(base64.b64decode(text, validate=True))).convert("RGB")
    except (binascii.Error, UnidentifiedImageError, OSError) as error:
        raise ValueError(f"row {row}, column image: not an image file as base64: {error}") from None


def _value(predictor: Predictor, name: str, prediction: Any, size: tuple[int, int]) -> dict[str, Any]:
    values, found = values_of(predictor.network.tasks[name], prediction, size)
    return values if found is None else {**values, "map": found.tolist()}


def _load_pyfunc(path: str) -> Served:
    """What MLflow calls with the folder of bundles."""
    return Served([load(bundle) for bundle in sorted(Path(path).iterdir())])
