"""What a label may be before it becomes a cell."""

import numpy as np
import pyarrow as pa
import pytest

from models.spec import Column
from pipeline.datasets import BadExample
from pipeline.encoding import encode, encode_image, image_type

BOXES = Column(layout="boxes", classes=("a", "b"))


@pytest.mark.parametrize(
    "corners", [(3.0, 2.0, 3.0, 9.0), (3.0, 9.0, 5.0, 9.0), (5.0, 2.0, 3.0, 9.0), (3.0, 9.0, 5.0, 2.0)]
)
def test_a_box_without_area_is_named(corners: tuple[float, ...]) -> None:
    good = [0.0, 0.0, 4.0, 4.0, 1.0]
    x0, y0, x1, y1 = corners
    message = rf"found: box 2 of 3 has no area: x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
    with pytest.raises(BadExample, match=message):
        encode("found", BOXES, np.array([good, [*corners, 0.0], good]))
    assert encode("found", BOXES, np.array([good])) == good
    assert encode("found", BOXES, np.zeros((0, 5))) == []


@pytest.mark.parametrize(("layout", "entry"), [("boxes", [0.0, 0.0, np.inf, 4.0, 1.0]), ("points", [np.nan, 1.0, 0.0])])
def test_coordinates_are_numbers(layout: str, entry: list[float]) -> None:
    with pytest.raises(BadExample, match="found: a coordinate is not finite"):
        encode("found", Column(layout=layout, classes=("a", "b")), np.array([entry]))


def test_a_raw_cell_is_the_image_as_it_stands_in_a_batch() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    cells = pa.array([encode_image(image, "raw", 95)], image_type("raw", (4, 6)))
    stored = np.frombuffer(cells[0].as_buffer(), dtype=np.uint8).reshape(3, 4, 6)
    np.testing.assert_array_equal(stored, image.transpose(2, 0, 1))
    assert image_type("jpeg", (4, 6)) == pa.binary()
