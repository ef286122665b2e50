"""A label column, as it was seen in the rows that were read -> counts, ranges, and what about it looks wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.spec import IGNORE, Column
from pipeline.check.entries import boxes_summary, points_summary
from pipeline.check.facts import Facts, Found, classes_missing, ends, listed, ranking, share_text
from pipeline.check.maps import field_summary, instances_summary, mask_summary, normals_summary


@dataclass(frozen=True, kw_only=True)
class ColumnCheck:
    """One column: its labelled images of those looked at, by split; `numbers` for programs, `lines` for people."""

    column: Column
    labelled: Mapping[str, int]
    looked_at: Mapping[str, int]
    numbers: Mapping[str, Any]
    lines: tuple[str, ...]
    warnings: tuple[str, ...]


def check_column(
    column: Column, facts: Mapping[str, Sequence[Any]], *, complete: bool, size: tuple[int, int], least: int
) -> ColumnCheck:
    """Map a column and its facts by split, None where unlabelled, to what there is to say about it."""
    holds = HOLDS.get(column.layout, lambda _fact: True)
    labelled = {split: [fact for fact in found if fact is not None and holds(fact)] for split, found in facts.items()}
    here = Facts(column=column, by_split=labelled, complete=complete, size=size, least=least)
    numbers, lines, warnings = SUMMARIES[column.layout](here) if here.every else ({}, [], [])
    if missing := [split for split, found in labelled.items() if facts[split] and not found]:
        whole = "no image" if complete else "none of the images looked at"
        warnings = [f"{whole} of {' and '.join(missing)} has a label", *warnings]
    return ColumnCheck(
        column=column,
        labelled={split: len(found) for split, found in labelled.items()},
        looked_at={split: len(found) for split, found in facts.items()},
        numbers=numbers,
        lines=tuple(lines),
        warnings=tuple(warnings),
    )


def _class(facts: Facts) -> Found:
    names, count = facts.column.classes, len(facts.column.classes)
    counts = {split: np.bincount(found, minlength=count) for split, found in facts.by_split.items()}
    train = counts["train"]
    lines, warnings = ranking(names, train, "training images")
    gaps, missing = classes_missing(facts, train, "training image")
    if rare := [f"{names[k]} {train[k]}" for k in np.argsort(train) if 0 < train[k] < facts.least]:
        gaps.append(f"fewer than min_class_count {facts.least}, so unlabelled: {listed(rare)}")
    numbers = {"counts": {split: found.tolist() for split, found in counts.items()}}
    return numbers, [*lines, *gaps], [*warnings, *missing]


def _flags(facts: Facts) -> Found:
    names = facts.column.classes
    flags = np.array(facts.train or facts.every)
    known, yes = (flags >= 0).sum(0), (flags == 1).sum(0)
    shares = yes / np.maximum(known, 1)
    words = [f"{names[k]} {share_text(shares[k])}" for k in np.argsort(-shares) if yes[k]]
    of = f"of the {len(flags):,} training images{'' if facts.complete else ' looked at'}"
    odd = {
        "has no label in any": known == 0,
        "is yes in none": (known > 0) & (yes == 0),
        "is yes in all": (known > 0) & (yes == known),
    }
    warnings = [
        f"{listed([names[k] for k in np.flatnonzero(which)])} {what} {of}" for what, which in odd.items() if which.any()
    ]
    numbers = {"yes": [float(share) if count else None for share, count in zip(shares, known, strict=True)]}
    return numbers, ends(words, "yes", "most often yes", "least often"), warnings


# Whether a fact that is there holds a label; without an entry it does.
HOLDS: dict[str, Callable[[Any], bool]] = {
    "flags": lambda flags: any(flag >= 0 for flag in flags),
    "mask": lambda pixels: set(pixels) != {IGNORE},
    "instances": lambda pixels: set(pixels) != {IGNORE},
    "field": lambda field: field.labelled > 0,
    "normals": lambda normals: normals.labelled > 0,
}
SUMMARIES: dict[str, Callable[[Facts], Found]] = {
    "class": _class,
    "flags": _flags,
    "mask": mask_summary,
    "field": field_summary,
    "normals": normals_summary,
    "instances": instances_summary,
    "points": points_summary,
    "boxes": boxes_summary,
}
