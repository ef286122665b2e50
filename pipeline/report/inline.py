"""Scripts, styles and data -> text that stands inside a page without ending its element."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

HERE = Path(__file__).parent
# What widgets are made with, in the order in which they need each other, and the page around them.
COMMON = ("page.js", "tables.js", "maps.js", "sketches.js", "shell.js")
ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def json_text(value: Any) -> Markup:
    """Map a value to JSON that may stand in a <script>; ValueError for a NaN, which JSON has not."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.translate(ESCAPES))


def style_text() -> Markup:
    """The style of the page."""
    return _own("page.css")


def script_texts(kinds: Iterable[str]) -> list[Markup]:
    """Map the kinds of widgets on a page to its scripts, each kind once."""
    return [_own(name) for name in (*COMMON, *(f"widgets/{kind}.js" for kind in sorted(set(kinds))))]


def exact_text(value: float | None) -> Markup:
    """Map a number to the attribute by which its cell sorts and is copied; nothing where there is none."""
    if value is None or not math.isfinite(value):
        return Markup("")
    return Markup(f' data-value="{escape(value)}"')


def _own(name: str) -> Markup:
    text = (HERE / name).read_text(encoding="utf-8")
    assert "</" not in text, f"{name} would end its own element"
    return Markup(text)
