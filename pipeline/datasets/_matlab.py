"""MATLAB's files of version 5 to 7.2 -> lists, texts and numbers, with every length checked against what is there.

SciPy's reader crashes the process on some damaged files; this one reads what public sets hold: numbers, texts, cells
and structures. The format is MathWorks' "MAT-File Format", level 5.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HEADER = 128  # bytes
MATRIX, COMPRESSED = 14, 15
CELL, STRUCTURE, TEXT = 1, 2, 4
NUMBERS = range(6, 16)  # classes of arrays, double to uint64
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
COMPLEX = 0x800
DEEPEST = 8  # cells in cells
MOST_BYTES = 1 << 28  # of a variable once it is unpacked; ImageNet's table has 200 KB


class Element(NamedTuple):
    """A piece of a file: its type, its bytes."""

    kind: int
    data: bytes


def read_matlab(path: Path, name: str) -> list[Any]:
    """A file, and the name of a variable in it -> its elements: numbers, texts, or dicts of a structure's fields.

    Arrays are read column by column. KeyError where there is no such variable, ValueError where the file is damaged.
    """
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("it has no header of version 5; files of version 7.3 can't be read")
    for kind, content in _elements(data[HEADER:], order):
        if kind == COMPRESSED:
            content = zlib_content(content)
            kind, content = next(_elements(content, order), Element(0, b""))
        if kind == MATRIX and content:
            found, value = _array(content, order, name, 0)
            if found == name:
                return value
    raise KeyError(name)


def zlib_content(data: bytes) -> bytes:
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("a variable is cut off, or too large")
    return content


def _elements(data: bytes, order: str) -> Iterator[Element]:
    """The elements that follow one another; of up to four bytes, one may stand in the tag."""
    at = 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:
            kind, length, start = kind & 0xFFFF, kind >> 16, at + 4
        end = start + length
        if end > len(data) or (start == at + 4 and length > 4):
            raise ValueError("an element is cut off")
        yield Element(kind, data[start:end])
        at = at + 8 if start == at + 4 else end if kind == COMPRESSED else end + -length % 8


def _array(data: bytes, order: str, wanted: str | None, depth: int) -> tuple[str, list[Any]]:
    """The bytes of an array -> its name and its elements; those of one by another name than wanted aren't read."""
    parts = list(_elements(data, order))
    if len(parts) < 3 or depth > DEEPEST:
        raise ValueError("an array without a head, or cells too deep in one another")
    flags, sizes, name = (part.data for part in parts[:3])
    (flag,) = _numbers(Element(6, flags[:4]), order)
    title = name.decode("latin-1")
    if wanted is not None and title != wanted:
        return title, []
    count, rest, kind = math.prod(map(int, _numbers(Element(5, sizes), order))), parts[3:], int(flag) & 0xFF
    if kind == CELL:
        values = [_one(part, order, depth) for part in rest]
    elif kind == STRUCTURE:
        values = _structures(rest, order, depth)
    elif kind == TEXT:
        return title, [_text(rest[0], order)] if rest else [""]
    elif kind in NUMBERS and not int(flag) & COMPLEX and len(rest) == 1:
        values = _numbers(rest[0], order).tolist()
    else:
        raise ValueError(f"an array of class {kind}; numbers, texts, cells and structures can be read")
    if len(values) != count:
        raise ValueError(f"an array of {count} elements holds {len(values)}")
    return title, values


def _one(part: Element, order: str, depth: int) -> Any:
    """A cell or a field -> its value: what stands alone is no list."""
    if part.kind != MATRIX:
        raise ValueError("a cell that holds no array")
    values = _array(part.data, order, None, depth + 1)[1] if part.data else []
    return values[0] if len(values) == 1 else values


def _structures(parts: Sequence[Element], order: str, depth: int) -> list[dict[str, Any]]:
    """A structure array's parts: the length of a field's name, the names, then every element's fields."""
    if len(parts) < 2:
        raise ValueError("a structure without fields")
    (width,) = map(int, _numbers(Element(5, parts[0].data[:4]), order))
    joined = parts[1].data
    if width < 1 or len(joined) % width:
        raise ValueError("a structure whose fields have no names")
    names = [joined[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(joined), width)]
    values = [_one(part, order, depth) for part in parts[2:]]
    if not names or len(values) % len(names):
        raise ValueError("a structure is cut off")
    rows = (values[at : at + len(names)] for at in range(0, len(values), len(names)))
    return [dict(zip(names, row, strict=True)) for row in rows]


def _numbers(part: Element, order: str) -> np.ndarray:
    kind = TYPES.get(part.kind)
    if kind is None or len(part.data) % int(kind[1]) or not part.data:
        if kind is not None and not part.data:
            return np.empty(0)
        raise ValueError(f"numbers of type {part.kind} that can't be read")
    return np.frombuffer(part.data, f"{order}{kind}")


def _text(part: Element, order: str) -> str:
    encoding = ENCODINGS.get(part.kind)
    if encoding is None:
        raise ValueError(f"a text of type {part.kind}")
    return part.data.decode(encoding + {"<": "-le", ">": "-be"}[order] * encoding.startswith(("utf-16", "utf-32")))
