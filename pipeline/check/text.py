"""The check of a data set -> the lines that people read."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.check.columns import ColumnCheck
from pipeline.check.images import ImagesCheck
from pipeline.checking import DatasetCheck
from pipeline.config import Task

HEADING, LONGEST = 9, 24  # letters of a line's heading, and of a longer name beside its text
SHORT = 100  # letters up to which what is said of a column stands on one line


def check_text(check: DatasetCheck, tasks: Mapping[str, Task]) -> str:
    """Map a data set's check, and the tasks that live on it, to text."""
    part = "all of them" if check.looked_at == check.total else f"{check.looked_at:,}, evenly over every split"
    items = [
        ("licence", check.manifest.licence),
        ("images", f"{check.total:,}: {_splits(check)}"),
        ("looked at", part),
    ]
    if check.images is not None:
        items += _image_lines(check, check.images)
    items.append(("copies", _copies(check)))
    for name, column in check.columns.items():
        used = [f"{key} ({task.kind})" for key, task in tasks.items() if (task.column or key) == name]
        items.append((name, _column_text(column, used)))
    items += [("warning", text) for text in check.warnings] + [("STOP", text) for text in check.stops]
    width = max([HEADING, *(len(heading) for heading, _ in items if len(heading) <= LONGEST)])
    lines = [line for heading, text in items for line in _lines(heading, text, width)]
    return "\n".join([f"{check.manifest.name}: reader {check.reader}, {check.root or 'no root'}", *lines])


def warning_count(checks: Sequence[DatasetCheck]) -> int:
    """How many warnings the texts of several data sets hold."""
    return sum(len(check.warnings) + sum(len(c.warnings) for c in check.columns.values()) for check in checks)


def _lines(heading: str, text: str, width: int) -> Iterator[str]:
    """A heading with its text beside it; a longer one stands above."""
    if len(heading) > width:
        yield f"  {heading}"
        heading = ""
    for line in text.splitlines():
        yield f"  {heading:{width}}  {line}"
        heading = ""


def _splits(check: DatasetCheck) -> str:
    parts = {split: f"{split} {count:,}" for split, count in check.counts.items()}
    sorts = {split: "drawn" if split in check.drawn else "official" for split in parts}
    if len(set(sorts.values())) == 1:
        return f"{', '.join(parts.values())} ({sorts['train']})"
    return ", ".join(f"{part} ({sorts[split]})" for split, part in parts.items())


def _image_lines(check: DatasetCheck, images: ImagesCheck) -> Iterator[tuple[str, str]]:
    height, width = check.manifest.size
    by_area = sorted((size for size, _ in images.sizes), key=lambda size: size[0] * size[1])
    (common, count), *others = images.sizes
    text = _by(common)
    if others:
        text = f"{_by(by_area[0])} to {_by(by_area[-1])}, most often {text} ({count / images.read:.0%})"
    if others or common != (width, height):
        text += f"; stored as {width}x{height}"
    if images.squeezed > 1.01:
        text += f", which changes the sides' ratio {images.squeezed:.2f} times"
    if images.enlarged > 1.1:
        text += f", {images.enlarged:.1f} times enlarged"
    yield "sizes", text
    grey = (
        f"; grey: {'all' if images.grey == images.read else f'{images.grey:,} of {images.read:,}'}"
        if images.grey
        else ""
    )
    mean, deviation = (" ".join(f"{value:.3f}" for value in values) for values in (images.mean, images.std))
    yield "colours", (f"mean {mean}, deviation {deviation}{grey}")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _copies(check: DatasetCheck) -> str:
    copies = check.copies
    where = ""
    if check.looked_at < check.total:
        where = ", among those looked at"
        if copies.by_file:
            where = " (exact files among all images, equal pixels among those looked at)"
    found = [f"{copies.across:,} images in more than one split"] if copies.across else []
    found += [f"{copies.within:,} repeated within a split"] if copies.within else []
    return "\n".join([f"{', '.join(found) or 'none'}{where}", *copies.pairs])


def _column_text(check: ColumnCheck, used: Sequence[str]) -> str:
    classes, what = check.column.classes, check.column.layout
    if classes:
        what += f" of {len(classes):,} classes" if len(classes) > 2 else f" {' / '.join(classes)}"
    first = f"{what}; task {', '.join(used)}" if used else f"{what}; no task"
    details = [f"{first}; {_labelled(check)}", *check.lines]
    if len("; ".join(details)) <= SHORT:
        details = ["; ".join(details)]
    return "\n".join([*details, *(f"warning: {text}" for text in check.warnings)])


def _labelled(check: ColumnCheck) -> str:
    if check.labelled == check.looked_at:
        return "all labelled"
    parts = [f"{split} {check.labelled[split]:,} of {total:,}" for split, total in check.looked_at.items() if total]
    return f"labelled: {', '.join(parts)}"
