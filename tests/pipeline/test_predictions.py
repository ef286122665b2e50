"""Predictions as JSON has them, for every kind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.tasks import TASKS
from pipeline.predictions import VALUES, values_of, write_map
from tests.models.task_cases import COLUMNS, make

SIZE = (48, 96)  # twice as high as what the network saw, three times as wide


def test_every_kind_has_values() -> None:
    assert VALUES.keys() == TASKS.keys() == COLUMNS.keys()


@pytest.mark.parametrize("kind", TASKS)
def test_what_a_fresh_head_gives_is_json(kind: str, tmp_path: Path) -> None:
    case = make(kind)
    for prediction in case.task.predict(case.output):
        values, picture = values_of(case.task, prediction, SIZE)
        assert json.loads(json.dumps(values, allow_nan=False)) == values
        if picture is not None:
            path = write_map(picture, tmp_path / "some.image")
            assert path.name in ("some.image.png", "some.image.npy")
            assert path.exists()


def test_points_are_the_peaks_in_pixels_of_the_image() -> None:
    task = make("keypoints").task
    heat = torch.zeros(len(task.classes), 24, 32)
    heat[0, 3, 5], heat[0, 3, 6], heat[1, 20, 30], heat[1, 10, 10] = 0.9, 0.8, 0.7, 0.4
    values, picture = values_of(task, heat, SIZE)
    assert values["points"] == [
        {"class": task.classes[0], "x": 5.5 * 3, "y": 3.5 * 2, "score": pytest.approx(0.9)},
        {"class": task.classes[1], "x": 30.5 * 3, "y": 20.5 * 2, "score": pytest.approx(0.7)},
    ]
    assert picture is not None
    assert np.array_equal(picture, heat.numpy())


def test_boxes_are_scaled_to_the_image() -> None:
    task = make("detection").task
    rows = torch.tensor([[1, 2, 11, 12, 1, 0.9], [0, 0, 0, 0, -1, 0], [0, 0, 32, 24, -1, 0]])
    values, _ = values_of(task, rows, SIZE)
    assert values == {"boxes": [{"box": [3, 4, 33, 24], "class": task.classes[1], "score": pytest.approx(0.9)}]}


def test_what_is_not_finite_is_nothing() -> None:
    values, _ = values_of(make("depth").task, torch.full((2, 2), torch.inf), SIZE)
    assert values["max"] is None
