"""Damaged copies of good files: trees of values as JSON has them, and plain bytes, each changed in a few places."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

Edit = tuple[str, int, Any]  # what is done, where, and with which value
DEEP: Any = None
for _ in range(40):
    DEEP = [DEEP]
# fmt: off
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 1.5, 1e-320, 1e308, 2**31, 2**63, 10**30, -(10**30), float("nan"), float("inf"),
    "", " ", "x", "nan", "1e999", "-1", "\0", "a\0b", "é\u2028\U0001f600", "a" * 300, "9" * 5000, "/etc/passwd",
    "C:\\x", "../../secret.png", "/secret.png", "~nobody/x", "antigravity:x", "hf-hub:a/b", "local-dir:/", "%s{0}", "*",
    "[", ".", "..", [], {}, [[]], {"": None}, [1, 2], ["a", "a"], [1.0] * 5, {"a": {"b": {}}}, DEEP,
]
TOKENS = (
    b"\0",
    b"\xff\xfe",
    b"\xc3",
    b"\xef\xbb\xbf",
    b"\t",
    b"\r",
    b"\n",
    b"\n\n",
    b" ",
    b",",
    b";",
    b":",
    b": ",
    b"- ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[" * 3000,
    b"&a ",
    b"*a",
    b"<<: *a\n",
    b"&a [*a]",
    b"!!python/object/apply:os.system [x]",
    b"!!binary x",
    b"!x ",
    b"? ",
    b"|\n",
    b"%YAML 9.9\n",
    b"---\n",
    b"...\n",
    b"#",
    b"'",
    b'"',
    b"`",
    b"@",
    b"\\x",
    b".inf",
    b".nan",
    b"1e999",
    b"9" * 5000,
    b"0x" + b"f" * 5000,
    b"-1",
    b"0",
    b"1",
    b"null",
    b"2001-01-01",
    b"nan",
    b"inf",
    b"../../secret.png",
    b"/secret.png",
    b"..",
    b"/",
    b"\x1b[2J",
    b"\xe2\x80\xa8",
    b"a" * 5000,
    b"<!DOCTYPE a>",
    b"&lol;",
    b"<",
    b">",
    b"</",
    b"true",
)
# fmt: on
IN_TREES = ("put", "drop", "double", "rename", "wrap", "copy")
IN_BYTES = ("insert", "delete", "replace", "cut", "double line", "drop line", "replace word", "flip")


def edits(kinds: Sequence[str], values: Sequence[Any]) -> st.SearchStrategy[list[Edit]]:
    """One to three changes, in places that `edited` counts round."""
    one = st.tuples(st.sampled_from(kinds), st.integers(0, 2**20), st.sampled_from(values))
    return st.lists(one, min_size=1, max_size=3)


TREE_EDITS = edits(IN_TREES, VALUES)
BYTE_EDITS = edits(IN_BYTES, TOKENS)


def edited_tree(tree: Any, changes: Sequence[Edit]) -> Any:
    """A tree of dicts, lists and values -> a changed copy."""
    holder = [deepcopy(tree)]
    for kind, where, value in changes:
        places = list(_places(holder))
        if not places:
            break
        held, name = places[where % len(places)]
        _change(kind, held, name, deepcopy(value), places[where * 7 % len(places)])
    return holder[0] if holder else None


def edited_bytes(data: bytes, changes: Sequence[Edit]) -> bytes:
    """Bytes -> a changed copy."""
    for kind, where, token in changes:
        at = where % (len(data) + 1)
        if kind in ("double line", "drop line", "replace word"):
            data = _change_line(kind, data, where, token)
        elif kind == "flip":
            data = data[:at] + bytes([data[at] ^ 1 << where % 8]) + data[at + 1 :] if at < len(data) else data
        else:
            length = {"insert": 0, "cut": len(data), "delete": 1 + where % 20, "replace": 1 + where % 9}[kind]
            data = data[:at] + (token if kind in ("insert", "replace") else b"") + data[at + length :]
    return data


def _places(node: Any) -> Any:
    """Every (container, key) of a tree."""
    for name in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, name
        if isinstance(node[name], dict | list):
            yield from _places(node[name])


def _change(kind: str, held: Any, name: Any, value: Any, other: tuple[Any, Any]) -> None:
    if kind == "put":
        held[name] = value
    elif kind == "wrap":
        held[name] = [held[name]]
    elif kind == "copy":
        held[name] = deepcopy(other[0][other[1]])
    elif kind == "drop":
        del held[name]
    elif isinstance(held, list):
        held.insert(name, deepcopy(held[name]) if kind == "double" else value)
    else:
        held[str(value)[:40] if kind == "rename" else f"{name}2"] = held.pop(name) if kind == "rename" else held[name]


def _change_line(kind: str, data: bytes, where: int, token: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    line = lines[where % len(lines)]
    if kind == "replace word":
        mark = next((mark for mark in (b",", b"\t", b" ", b";", b":") if mark in line), b" ")
        words = line.split(mark)
        words[where * 7 % len(words)] = token
        lines[where % len(lines)] = mark.join(words)
    else:
        lines[where % len(lines)] = line + line if kind == "double line" else b""
    return b"".join(lines)
