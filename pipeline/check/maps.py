"""Maps of labels, a value a pixel, as they were seen -> shares, ranges, and what about them looks wrong."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.spec import IGNORE
from pipeline.check.facts import Facts, Found, classes_missing, ends, share_text, spread_of, spread_text
from pipeline.check.rows import FieldFacts, NormalFacts

LARGEST = 65535  # steps that a stored field has
AWAY = 0.25  # share of normals from which on they point the wrong way: near the edges of an image some rightly do


def mask_summary(facts: Facts) -> Found:
    """Pixels by value -> each class's share of the labelled ones, and the unlabelled share of all."""
    names, count = facts.column.classes, len(facts.column.classes)
    pixels = _pixel_counts(facts.every)
    known, unlabelled = pixels[:IGNORE], float(pixels[IGNORE] / pixels.sum())
    shares = known[:count] / known.sum()
    words = [f"{names[k]} {share_text(shares[k])}" for k in np.argsort(-shares, kind="stable") if shares[k]]
    lines = ends(words, "pixels", "most pixels", "fewest")
    if unlabelled:
        lines.append(f"{share_text(unlabelled)} of the pixels are unlabelled ({IGNORE})")
    gaps, warnings = classes_missing(facts, _pixel_counts(facts.train)[:count], "training pixel")
    if count > 1 and set(np.flatnonzero(pixels)) == {0, IGNORE}:
        warnings = [
            f"the masks hold only 0 and {IGNORE}, but there are {count} classes; is this a black and white picture?"
            f" Class ids count from 0, {IGNORE} = unlabelled"
        ]
    elif len(words) == 1:
        warnings = [f"every labelled pixel is {names[int(shares.argmax())]}"]
    return {"shares": shares.tolist(), "unlabelled": unlabelled}, [*lines, *gaps], warnings


def field_summary(facts: Facts) -> Found:
    """Labelled pixels -> range, median and histogram in the column's unit, and values that storing would change."""
    found: list[FieldFacts] = facts.every
    scale, unit = facts.column.scale, f" {facts.column.unit}".rstrip()
    low, high = min(fact.low for fact in found), max(fact.high for fact in found)
    values = np.concatenate([fact.some for fact in found])
    unlabelled = 1 - sum(fact.labelled for fact in found) / sum(fact.pixels for fact in found)
    line = f"{low:.3g} to {high:.3g}{unit}, median {np.median(values):.3g}{unit}"
    if unlabelled > 0:
        line += f"; {share_text(unlabelled)} of the pixels are unlabelled (0)"
    warnings: list[str] = []
    if low == high:
        warnings.append(f"every labelled pixel is {low:.3g}{unit}")
    if (steps := round(high / scale)) >= LARGEST:
        most = f"{LARGEST * scale:.4g}{unit}, the most that 16 bits hold at scale {scale:g}"
        cut = f"values reach {high:.4g}{unit}, and are cut off at {most}; take a larger scale"
        warnings.append(cut if steps > LARGEST else f"values reach {most}; where that means not measured, write 0")
    counts, edges = np.histogram(values, 40)
    numbers = {"low": low, "median": float(np.median(values)), "high": high, "unlabelled": unlabelled}
    return numbers | {"histogram": counts.tolist(), "edges": edges.tolist()}, [line], warnings


def normals_summary(facts: Facts) -> Found:
    """Labelled pixels -> the unlabelled share, and whether the normals face the camera."""
    found: list[NormalFacts] = facts.every
    labelled, pixels, away = (sum(getattr(fact, key) for fact in found) for key in ("labelled", "pixels", "away"))
    lines = [f"{share_text(1 - labelled / pixels)} of the pixels are unlabelled"]
    share = away / labelled
    warnings = []
    if share > AWAY:
        warnings.append(
            f"{share_text(share)} of the normals point away from the camera; a normal's third component points to it"
        )
    return {"unlabelled": 1 - labelled / pixels, "away": share}, lines, warnings


def instances_summary(facts: Facts) -> Found:
    """Pixels by instance -> how many instances an image has."""
    numbers = [len(set(fact) - {0, IGNORE}) for fact in facts.every]
    warnings = [] if max(numbers) else ["no image has an instance: every pixel is 0"]
    return {"an_image": spread_of(numbers)}, [f"instances an image: {spread_text(numbers)}"], warnings


def _pixel_counts(found: Sequence[Mapping[int, int]]) -> np.ndarray:
    total = np.zeros(256, dtype=np.int64)
    for fact in found:
        total[list(fact)] += list(fact.values())
    return total
