"""What a label may be before it becomes a cell."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

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


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            Column(layout="mask", classes=("a", "b")),
            np.array([[0, 1], [-100, 1]]),
            "label -100, but there are 2 classes",
        ),
        (Column(layout="mask", classes=("a", "b")), np.array([[0, 1.5]]), "no whole number"),
        (Column(layout="mask", classes=("a", "b")), np.array([[0, np.nan]]), "no whole number"),
        (Column(layout="mask", classes=("a", "b")), np.zeros((2, 2, 1)), r"shape \[2, 2, 1\]"),
        (Column(layout="instances"), np.array([[1, 256]]), "the id 256, but 1 to 254"),
        (Column(layout="instances"), np.array([[-1, 2]]), "the id -1"),
        (Column(layout="field", scale=0.001), np.array([[1.0, 100.0]]), "the value 100, .* no more than 65.535"),
        (Column(layout="field"), np.array([[-1.0]]), "below 0"),
        (Column(layout="class", classes=("a", "b")), 1.7, "label 1.7"),
        (Column(layout="class", classes=("a", "b")), [1], "not a label of layout class"),
        (Column(layout="flags", classes=("a", "b")), 3, "not a label of layout flags"),
        (BOXES, np.zeros((5, 4)), r"shape \[5, 4\], but 5 numbers each"),
        (BOXES, [[0, 0, 4, 4, 0.7]], "label 0.7"),
        (BOXES, "0 0 4 4", "not a label of layout boxes"),
    ],
)
def test_what_is_no_such_label_is_refused_and_never_wrapped(column: Column, value: object, message: str) -> None:
    with pytest.raises(BadExample, match=f"^mine: .*{message}"):
        encode("mine", column, value)


def test_what_is_labelled_stays_labelled() -> None:
    """0 means unlabelled: a value that rounds to it is stored as one step."""
    column = Column(layout="field", scale=1.0)
    stored = np.array(Image.open(io.BytesIO(encode("depth", column, np.array([[0.0, 0.2, 0.6, 65535.0]])))))
    assert stored.tolist() == [[0, 1, 1, 65535]]
