"""Readers that the user writes: `reader: my.module:function`, a function of `SourceSettings` that gives a `Source`.

The module is looked for in the folder where the command runs, then among what is installed.
"""

import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from models.spec import Column
from pipeline.datasets._items import where_it_failed
from pipeline.datasets.base import BadExample, Example, Row, Source, SourceSettings

Open = Callable[[SourceSettings], Source]


class Own(Source):
    """A source of the user's code: what goes wrong in there names the setting, the reader, and the line."""

    def __init__(self, source: Source, settings: SourceSettings, where: str) -> None:
        super().__init__(settings)
        self.licence = source.licence  # pyright: ignore[reportAttributeAccessIssue] - of the class, elsewhere
        self._source, self._where = source, where

    @property
    def code(self) -> Path:
        return self._source.code

    def columns(self) -> Mapping[str, Column]:
        return self._asked("columns", self._source.columns)

    def rows(self) -> Sequence[Row]:
        return self._asked("rows", self._source.rows)

    def load(self, row: Row) -> Example:
        try:
            example = self._source.load(row)
        except BadExample:
            raise
        except Exception as error:
            raise BadExample(f"{self._where}: load fails: {where_it_failed(error)}") from error
        if not isinstance(example, Example):
            raise BadExample(f"{self._where}: load gives a {type(example).__name__}, but an Example is expected")
        image = np.asarray(example.image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            what = f"{image.dtype} {list(image.shape)}"
            raise BadExample(f"{self._where}: load gives an image {what}, but uint8 [H, W, 3] is expected")
        return example

    def _asked(self, what: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ValueError as error:  # as a reader says what is missing
            raise ValueError(f"{self._where}: {error}") from error
        except Exception as error:
            raise ValueError(f"{self._where}: {what} fails: {where_it_failed(error)}") from error


def own_reader(reader: str, key: str) -> Open:
    """`module:function` -> what opens that source. ValueError begins with `key`, the setting that names the reader."""
    module, _, name = reader.partition(":")
    _look_here()
    try:
        found = import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"{key}: no module {error.name} (looked in {Path.cwd()} and what is installed)") from error
        raise ValueError(f"{key}: importing {module} fails: {where_it_failed(error)}") from error
    build = getattr(found, name, None)
    if not callable(build):
        raise ValueError(f"{key}: {found.__file__} has no function {name}")

    def open_own(settings: SourceSettings) -> Source:
        try:
            source = build(settings)
        except Exception as error:
            raise ValueError(f"{key}: {reader} fails: {where_it_failed(error)}") from error
        return Own(_checked(source, f"{key}: {reader}"), settings, f"{key}: {reader}")

    return open_own


def code_of(reader: str) -> list[Path]:
    """A reader's name -> the files of the user's code that it depends on: its module, or all of its package.

    None for a reader of the house, whose files DVC knows.
    """
    if ":" not in reader:
        return []
    _look_here()
    spec = find_spec(reader.partition(":")[0].split(".")[0])
    if spec is None:
        return []  # opening the reader says so
    if spec.submodule_search_locations:
        return sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py"))
    return [Path(spec.origin)] if spec.origin else []


def _look_here() -> None:
    """`python -m` looks for modules where it runs; so do a notebook and a test from here on."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def _checked(source: Any, where: str) -> Source:
    if not isinstance(source, Source):
        raise ValueError(f"{where} gives a {type(source).__name__}, but a Source is expected, such as Items(...)")
    if not isinstance(getattr(source, "licence", None), str):
        raise ValueError(f"{where}: {type(source).__name__} says no licence: ClassVar[str]")
    try:
        with open(os.devnull, "wb") as nowhere:
            pickle.dump(source, nowhere)
    except Exception as error:
        raise ValueError(f"{where}: the source must be picklable, to go to other processes: {error}") from error
    return source
