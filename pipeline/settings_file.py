"""A YAML file -> a typed, checked value, or one message with all its errors: line, key path, the nearest right name."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

Model = TypeVar("Model", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


class Settings(BaseModel):
    """A frozen section: no unknown keys, no strings taken for numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def read(path: Path) -> Any:
    """A YAML file's content, which remembers the line of every key."""
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    try:
        return YAML(typ="rt").load(path.read_text())
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}:{line}: not readable as YAML: {error.problem}") from None


def validate(model: type[Model], raw: Any, path: Path, errors: list[tuple[tuple[Any, ...], str]]) -> Model:
    """Map a file's content to the value; `errors` are those found already, by key path."""
    try:
        config = model.model_validate(_plain(raw))
    except ValidationError as error:
        errors += [(item["loc"], _explain(model, item)) for item in cast(list[dict[str, Any]], error.errors())]
        config = None
    if errors:
        lines = {(_line(raw, loc), f"{'.'.join(map(str, loc))}: {text}") for loc, text in errors}
        raise ValueError("\n".join(f"{path}:{line} {text}" for line, text in sorted(lines)))
    assert config is not None
    return config


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the nearest right one, or all of them."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else f"Use one of {', '.join(known)}."


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
        return f"{text}; {error['input']!r} is text: remove the quotes"
    return f"{text} (found {error['input']!r})" if not isinstance(error["input"], dict | list) else text


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
