"""A network's spec as JSON has it -> the value, checked against its fields' types; undoes `dataclasses.asdict`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from models.spec import ModelSpec

LARGEST = 1 << 20  # whole number of a spec: widths, counts and sides are far below
MOST_PIXELS = 1 << 24  # of an image; to know its features' sizes, a network is run on an empty one
SHOWN = 80  # letters of a wrong value


def decode_spec(raw: Mapping[str, Any]) -> ModelSpec:
    """Map the JSON form of a spec to the value. ValueError begins with the place, as in `tasks[0].column.layout`."""
    spec = _decode(ModelSpec, raw, "")
    names = [task.name for task in spec.tasks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"tasks: two are named {twice[0]!r}")
    for where, size in [("backbone", spec.backbone.size), *((task.name, task.size) for task in spec.tasks)]:
        if size and (min(size) < 1 or math.prod(size) > MOST_PIXELS):
            raise ValueError(f"{where}.size: {list(size)}, but images have 1 to {MOST_PIXELS:,} pixels")
    return spec


def _decode(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _union(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple) or (inner[-1] is not ... and len(value) != len(inner)):
            raise _unlike(kind, value, where)
        kinds = [inner[0]] * len(value) if inner[-1] is ... else inner
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_decode(each, part, f"{where}[{n}]") for n, (each, part) in pairs)
    if not PLAIN[kind](value):
        raise _unlike(kind, value, where)
    return value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    known, kinds = {field.name: field for field in fields(kind)}, _hints(kind)
    dot = f"{where}." if where else ""
    if not isinstance(value, Mapping):
        raise _unlike(kind, value, where)
    if strange := [name for name in value if name not in known]:
        raise ValueError(f"{dot}{strange[0][:SHOWN]}: unknown; it is written by another version of this program")
    needed = {name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING}
    if missing := sorted(needed - value.keys()):
        raise ValueError(f"{dot}{missing[0]}: missing")
    found = {name: _decode(kinds[name], part, f"{dot}{name}") for name, part in value.items()}
    try:
        return kind(**found)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _union(kinds: Sequence[Any], value: Any, where: str) -> Any:
    for kind in kinds:
        try:
            return _decode(kind, value, where)
        except ValueError:
            continue
    raise _unlike(" or ".join(_name(kind) for kind in kinds), value, where)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _unlike(kind: Any, value: Any, where: str) -> ValueError:
    shown = repr(value) if not isinstance(value, int) or abs(value) <= 10**SHOWN else "a number of many digits"
    return ValueError(f"{where or 'spec'}: {shown[:SHOWN]}, but {_name(kind)} is expected")


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)


PLAIN = {
    NoneType: lambda value: value is None,
    bool: lambda value: type(value) is bool,
    int: lambda value: type(value) is int and abs(value) <= LARGEST,
    float: lambda value: type(value) in (int, float) and abs(value) <= 1e300,
    str: lambda value: isinstance(value, str),
}
