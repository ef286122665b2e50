"""A YAML file -> a typed, checked value, or one message with all its errors: line, key path, the nearest right name."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

Model = TypeVar("Model", bound=BaseModel)
LARGEST = 2**31 - 1  # whole number: what a table's column and a random generator's seed can hold
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0, le=LARGEST)]
# A study of 400 tasks has 40 KB; ruamel takes 8 s for a megabyte, and for open brackets the square of their number.
MOST_BYTES, MOST_VALUES, DEEPEST = 1 << 20, 100_000, 50
SHOWN = 200  # letters of a wrong value


class Settings(BaseModel):
    """A frozen section: no unknown keys, no strings taken for numbers, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def read(path: Path) -> Any:
    """A YAML file's content, which remembers the line of every key. Tags name no types: nothing of it is run."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    text = _text(path)
    try:
        content = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}:{line}: not readable as YAML: {error.problem}") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"{path}:{line}: not readable as YAML: the character {error.character!r}") from None
    except Exception as error:  # ruamel lets pass what some unusual files do to it
        raise ValueError(f"{path}:1: not readable as YAML: {error!r}"[: 2 * SHOWN]) from None
    _refuse_endless(content, path)
    return content


def validate(model: type[Model], raw: Any, path: Path, errors: list[tuple[tuple[Any, ...], str]]) -> Model:
    """Map a file's content to the value; `errors` are those found already, by key path."""
    try:
        config = model.model_validate(_plain(raw))
    except ValidationError as error:
        errors += [(item["loc"], _explain(model, item)) for item in cast(list[dict[str, Any]], error.errors())]
        config = None
    if errors:
        lines = {(_line(raw, loc), f"{'.'.join(map(_on_one_line, loc))}: {text}") for loc, text in errors}
        raise ValueError("\n".join(f"{path}:{line} {text}" for line, text in sorted(lines)))
    assert config is not None
    return config


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the nearest right one, or all of them."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {_on_one_line(close[0])}?" if close else f"Use one of {', '.join(map(_on_one_line, known))}."


def _text(path: Path) -> str:
    data = path.read_bytes()
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path}:1: {len(data):,} bytes, but settings have {MOST_BYTES:,} at most")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:{data.count(10, 0, error.start) + 1}: not UTF-8: {error.reason}") from None
    depths = accumulate((letter in "[{") - (letter in "]}") for letter in text)
    if max(depths, default=0) > DEEPEST:
        raise ValueError(f"{path}:1: more than {DEEPEST} brackets are open at once")
    return text


def _refuse_endless(content: Any, path: Path) -> None:
    """Refuse what aliases make of a small file: a value in itself, or more values than memory holds."""
    todo, count = [(content, 0)], 0
    while todo:
        node, depth = todo.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise ValueError(
                f"{path}:1: more than {MOST_VALUES:,} values, or {DEEPEST} sections in one another; aliases (*name)"
                " count as what they stand for"
            )
        inner = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        todo += [(value, depth + 1) for value in inner]


def _plain(node: Any) -> Any:
    """ruamel's round-trip types as plain ones, so that strict validation sees int, float and str."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _explain(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown key. {nearest(str(error['loc'][-1]), _keys_at(model, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return "missing; this key has no default"
    text = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], str) and is_number(error["input"]):
        return f"{text}; {_short(error['input'])} is text: remove the quotes"
    return f"{text} (found {_short(error['input'])})" if not isinstance(error["input"], dict | list) else text


def _on_one_line(name: Any) -> str:
    text = str(name)[:SHOWN]
    return text if text.isprintable() else repr(text)[1:-1]


def _short(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 10**SHOWN:
        return f"a number of more than {SHOWN} digits"  # Python writes no number of thousands
    shown = repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


def _keys_at(model: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    """The keys that a section knows, followed down a path; named sections are passed through by their type."""
    kinds: Any = model
    for part in loc:
        if isinstance(kinds, type) and issubclass(kinds, BaseModel):
            kinds = kinds.model_fields[str(part)].annotation
        else:
            kinds = getattr(kinds, "__args__", (None, None))[1]
    return list(kinds.model_fields) if isinstance(kinds, type) and issubclass(kinds, BaseModel) else []


def _line(raw: Any, loc: Sequence[Any]) -> int:
    """The line of the deepest key on the path that the file holds."""
    line = 1
    for part in loc:
        held = raw if isinstance(raw, Mapping) else range(len(raw)) if isinstance(raw, list) else ()
        if not hasattr(raw, "lc") or part not in held:
            break
        marks = cast(Any, raw).lc
        line = (marks.key(part) if isinstance(raw, Mapping) else marks.item(part))[0] + 1
        raw = raw[part]
    return line


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
