"""The same picture in two splits, or twice in one: exact files among all rows, equal pixels among those that were read.

A drawn split keeps exact copies on one side; official lists, and files that were only saved anew, need this look.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.check.rows import Seen
from pipeline.datasets import Row

SHA256 = re.compile(r"[0-9a-f]{64}")  # what `content_group` gives: the group is then the content of the file
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Copies:
    """How many images stand in two splits, how many are copies within their own, and pairs of the former.

    `by_file`: exact copies were looked for among all rows, not among those read alone.
    """

    across: int
    within: int
    pairs: tuple[str, ...]
    by_file: bool


def find_copies(rows: Sequence[tuple[str, Row]], seen: Sequence[tuple[str, Row, Seen]]) -> Copies:
    """Map all rows with their splits, and those that were read, to the copies among them."""
    files = [(row.group, split, row) for split, row in rows if SHA256.fullmatch(row.group)]
    pixels = [(one.digest, split, row) for split, row, one in seen]
    across: set[str] = set()
    within: set[str] = set()
    pairs: list[str] = []
    for alike in (*_alike(files), *_alike(pixels)):
        splits = {split for split, _ in alike}
        if len(splits) == 1:
            within |= {row.id for _, row in alike[1:]}
            continue
        first, other = alike[0], next(item for item in alike if item[0] != alike[0][0])
        if not {first[1].id, other[1].id} <= across:
            pairs.append(f"{first[1].origin} ({first[0]}) = {other[1].origin} ({other[0]})")
        across |= {row.id for _, row in alike}
    return Copies(
        across=len(across),
        within=len(within - across),
        pairs=tuple(pairs[:SHOWN]),
        by_file=bool(rows) and len(files) == len(rows),
    )


def _alike(items: Iterable[tuple[str, str, Row]]) -> list[list[tuple[str, Row]]]:
    """Items by key -> those of one key together, where there are several."""
    found: dict[str, list[tuple[str, Row]]] = {}
    for key, split, row in items:
        found.setdefault(key, []).append((split, row))
    return [alike for alike in found.values() if len(alike) > 1]
