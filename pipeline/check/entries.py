"""Points and boxes, as they were seen -> how many an image has, of which classes and sizes, and what looks wrong."""

from collections.abc import Sequence

import numpy as np

from pipeline.check.facts import Facts, Found, classes_missing, ranking, share_text, spread_of, spread_text

SMALL = 4.0  # pixels: a shorter side of a box than this is hardly seen


def points_summary(facts: Facts) -> Found:
    """Points [P, 3] at the stored size -> their numbers, and how many lie outside."""
    entries = np.concatenate(facts.every)
    height, width = facts.size
    outside = int(((entries[:, :2] < 0) | (entries[:, :2] > (width, height))).any(1).sum())
    numbers, lines, warnings = _entries(facts, "point", "points")
    if outside:
        warnings.append(f"{outside:,} of {len(entries):,} points lie outside their image")
    return numbers | {"outside": outside}, lines, warnings


def boxes_summary(facts: Facts) -> Found:
    """Boxes [P, 5] at the stored size -> their numbers and sizes."""
    entries = np.concatenate(facts.every)
    numbers, lines, warnings = _entries(facts, "box", "boxes")
    if not len(entries):
        return numbers, lines, warnings
    sides = entries[:, 2:4] - entries[:, :2]
    wide, high = np.median(sides, axis=0)
    small = float((sides.min(1) < SMALL).mean())
    lines.append(
        f"sides at the stored size: {wide:.0f}x{high:.0f} pixels at the median, the shortest {sides.min():.2g}"
    )
    if small > 0.05:
        warnings.append(
            f"{share_text(small)} of the boxes have a side under {SMALL:g} pixels at the stored size; store larger ones"
        )
    return numbers | {"side": np.sqrt(sides.prod(1)).round(1).tolist(), "small": small}, lines, warnings


def _entries(facts: Facts, one: str, what: str) -> Found:
    """What points and boxes have in common: how many an image has, and of which classes."""
    names, each = facts.column.classes, [len(fact) for fact in facts.every]
    lines = [f"{what} an image: {spread_text(each)}"]
    if not sum(each):
        return {"an_image": spread_of(each)}, lines, [f"no image has any {what}"]
    counts, in_train = _by_class(facts.every, len(names)), _by_class(facts.train, len(names))
    warnings: list[str] = []
    if len(names) > 1:
        gaps, warnings = classes_missing(facts, in_train, f"{one} in a training image")
        lines += [*ranking(names, counts, what)[0], *gaps]
    return {"an_image": spread_of(each), "counts": {"all": counts.tolist()}}, lines, warnings


def _by_class(found: Sequence[np.ndarray], count: int) -> np.ndarray:
    kinds = [int(kind) for entries in found for kind in entries[:, -1]]
    return np.bincount(np.array(kinds, dtype=int), minlength=count)
