"""MATLAB's files against SciPy's writer: what it writes is read, whole or packed; what is damaged is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from pipeline.datasets._listed import read_mat, whole

TABLE = np.array(
    [("a.jpg", 1, 2.5), ("b\u00e9.jpg", 300, -1.0)], dtype=[("name", object), ("n", object), ("x", object)]
)
VARIABLES: dict[str, tuple[Any, list[Any]]] = {
    "bytes": (np.array([[1, 2, 255]], np.uint8), [1, 2, 255]),
    "reals": (np.array([[0.5], [-1e300]]), [0.5, -1e300]),
    "columns": (np.array([[1, 2], [3, 4]], np.int32), [1, 3, 2, 4]),
    "text": ("a word", ["a word"]),
    "cells": (np.array(["tench", "crane"], object), ["tench", "crane"]),
    "mixed": (np.array(["a", np.array([1, 2])], object), ["a", [1, 2]]),
    "table": (TABLE, [{"name": "a.jpg", "n": 1, "x": 2.5}, {"name": "b\u00e9.jpg", "n": 300, "x": -1.0}]),
    "nothing": (np.zeros((0, 0)), []),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", VARIABLES)
def test_what_scipy_writes_is_read(name: str, packed: bool, tmp_path: Path) -> None:
    contents = {key: value for key, (value, _) in VARIABLES.items()}
    scipy.io.savemat(tmp_path / "a.mat", contents, do_compression=packed)
    assert read_mat(tmp_path / "a.mat", name) == VARIABLES[name][1]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"x": 1})
    with pytest.raises(ValueError, match=r"a\.mat: it holds no 'y'"):
        read_mat(tmp_path / "a.mat", "y")
    with pytest.raises(ValueError, match=r"b\.mat: not found"):
        read_mat(tmp_path / "b.mat", "y")
    (tmp_path / "c.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(600))
    with pytest.raises(ValueError, match=r"c\.mat: not a MATLAB file, or cut off: .*7\.3"):
        read_mat(tmp_path / "c.mat", "y")


def test_a_file_cut_anywhere_is_refused_or_lacks_the_variable(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"x": TABLE, "y": np.arange(9)})
    data = (tmp_path / "a.mat").read_bytes()
    for end in range(0, len(data), 7):
        (tmp_path / "a.mat").write_bytes(data[:end])
        try:
            assert read_mat(tmp_path / "a.mat", "x") == VARIABLES["table"][1]
        except ValueError as error:
            assert "a.mat" in str(error)  # noqa: PT017 - either end is right


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), "1", [], [1, 2], None])
def test_only_a_whole_number_is_one(value: Any) -> None:
    assert whole(3.0, "here") == 3
    with pytest.raises(ValueError, match=r"here: .* a whole number is expected"):
        whole(value, "here")
