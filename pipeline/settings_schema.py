"""The typed settings as JSON Schema, for editors: they complete keys, describe them and underline what is wrong.

    python -m pipeline.settings_schema    writes params.schema.json and machine.schema.json

What a key means stands in the docstring of its section's class, in a table of keys: the only place where it does.
"""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from pipeline.config import ROOT, Config
from pipeline.machine import Machine
from pipeline.settings_file import Settings

FILES: Mapping[str, type[Settings]] = {"params.schema.json": Config, "machine.schema.json": Machine}
KEY = re.compile(r"(\w+) {2,}(\S.*)")  # of a table in a docstring; what is indented goes on with it


class _Untitled(GenerateJsonSchema):
    """As pydantic's own, without a title beside each key that says the key again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def schema_of(model: type[Settings]) -> dict[str, Any]:
    """A settings class -> its JSON Schema (draft 2020-12), with a description for each section and key."""
    schema = model.model_json_schema(schema_generator=_Untitled)
    sections = {section.__name__: section for section in Settings.__subclasses__()}
    for name, part in [(model.__name__, schema), *schema.get("$defs", {}).items()]:
        part["description"] = about(sections[name])
        for key, text in keys_of(sections[name]).items():
            part["properties"][key]["description"] = text
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def about(section: type[Settings]) -> str:
    """What the docstring of a section says of it as a whole: its first paragraph."""
    return " ".join(_doc(section).partition("\n\n")[0].split())


def keys_of(section: type[Settings]) -> dict[str, str]:
    """Map the keys in the table of a section's docstring to what it says of them."""
    found: dict[str, str] = {}
    key = ""
    for line in _doc(section).rpartition("\n\n")[2].splitlines():  # the table is the last paragraph
        if match := KEY.fullmatch(line):
            key = match[1]
            found[key] = match[2]
        elif key:
            found[key] += f" {line.strip()}"
    return found


def _doc(section: type[Settings]) -> str:
    return inspect.cleandoc(section.__doc__ or "")


def text_of(model: type[Settings]) -> str:
    """A settings class -> the content of its schema's file."""
    return json.dumps(schema_of(model), indent=1, ensure_ascii=False) + "\n"


def main(folder: Path = ROOT) -> None:
    for name, model in FILES.items():
        (folder / name).write_text(text_of(model), encoding="utf-8")
        print(f"schema: {name}")


if __name__ == "__main__":
    main()
