"""What a stage found -> the lines that it ends with."""

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from textwrap import fill
from typing import Any

from models.branch_tree import BranchTree
from pipeline.plan_text import table
from pipeline.report.number_texts import count_text, number_text, percent_text, value_text
from pipeline.terminal import LABEL, LINE, folded

Row = Mapping[str, Any]
MANY = 12  # tasks that a line still names
LONGEST = 64  # letters of a tree
UNIT = re.compile(r"(?<=\d) (?=%|[kMG]\b)")  # no line ends between a number and its unit


def metric_cells(values: Mapping[str, float], metrics: Mapping[str, str]) -> str:
    """Map each task's value and its metric's name to short words, the first tasks' where there are many."""
    cells = [f"{task} {metrics[task]} {value_text(value)}" for task, value in values.items()]
    return folded([*cells[:MANY], *_more(len(cells))])


def affinity_lines(names: Sequence[str], affinities: Sequence[Sequence[Sequence[float]]]) -> str:
    """Map affinities [D][T][T] to their mean over pairs at every location, and the pair that is most unlike."""
    pairs = [(a, b) for a in range(len(names)) for b in range(a)]
    if not pairs:
        return "one task: no pair to compare"
    means = [mean(at_TT[a][b] for a, b in pairs) for at_TT in affinities]
    low, d, a, b = min((at_TT[a][b], d, a, b) for d, at_TT in enumerate(affinities, 1) for a, b in pairs)
    cells = "  ".join(number_text(value) for value in means)
    unlike = f"{names[b]} – {names[a]}, {number_text(low)} at location {d}"
    return f"mean r_s at locations 1 to {len(means)}: {cells}\nmost unlike: {unlike}"


def tree_lines(rows: Sequence[tuple[str, BranchTree, Row]], names: Sequence[str]) -> str:
    """Map labels, trees and what is known of them to a table: branches in brackets and size, then where they part.

    Of trained trees in place of the latter what they reached.
    """
    lines = []
    for label, tree, row in rows:
        more = _delta(row) if "delta_mtl" in row else (splits(tree), "")
        lines.append((label, bracketed(tree, names), count_text(row["params"]), *more))
    return "\n".join(table(lines, left=(0, 1)))


def method_lines(methods: Sequence[Row], runs: Sequence[Row], deltas: Mapping[str, float]) -> str:
    """Map the methods of the taps stage to a table: open layers, size, and Δ_MTL or the mean metric."""
    by_name = {run["name"]: run for run in runs}
    lines = []
    for line in methods:
        shares = [by_name[name]["layers_share"] for name in line["runs"].values()]
        layers = f"{100 * mean(shares):.0f} % of layers" if shares and None not in shares else ""
        lines.append((line["label"], layers, f"{line['multiple']:.2f} × parameters", _reached(line, deltas)))
    return "\n".join(table(lines, left=(0,)))


def network_lines(lines: Sequence[Row]) -> str:
    """Map networks for several tasks to a table: size and Δ_MTL on test."""
    return "\n".join(table([(line["label"], count_text(line["params"]), *_delta(line)) for line in lines], left=(0,)))


def mode_lines(modes: Sequence[Row]) -> str:
    """Map the modes of the adapt stage to a table: what each trains of what it keeps, and reaches on test."""
    rows = []
    for mode in modes:
        share = 100 * mode["trained_params"] / mode["model_params"]
        sizes = f"{share:.1f} % of {count_text(mode['model_params'])} trained"
        rows.append((mode["label"], sizes, value_cells(mode["test"])))
    return "\n".join(table(rows, left=(0, 2)))


def changed_lines(label: str, tasks: Sequence[str], matrix: Sequence[Sequence[float | None]]) -> str:
    """Map the tasks' metrics after each data set that was learned to those that are not what they were at first."""
    cells = []
    for place, task in enumerate(tasks):
        texts = [value_text(value) for row in matrix if (value := row[place]) is not None]
        if texts[0] != texts[-1]:
            cells.append(f"{task} {texts[0]} → {texts[-1]}")
    head = f"one after another, {label}:"
    return f"{head}\n{folded(cells)}" if cells else f"{head} every task as it was when it was learned"


def choice_lines(sentences: Iterable[tuple[str, str]]) -> str:
    """Map each budget and what to take at it to lines; how noise was measured stands on the page."""
    texts = [f"{budget}: {sentence}" for budget, sentence in sentences if budget != "noise"]
    held = (UNIT.sub("\u00a0", text) for text in texts)
    lines = (fill(text, LINE - LABEL, subsequent_indent="  ", break_long_words=False) for text in held)
    return "\n".join(lines).replace("\u00a0", " ")


def value_cells(values: Mapping[str, float]) -> str:
    """Map each task's value to words on one line."""
    cells = [f"{task} {value_text(value)}" for task, value in values.items()]
    return "  ".join([*cells[:MANY], *_more(len(cells))])


def bracketed(tree: BranchTree, names: Sequence[str]) -> str:
    """Map a tree to its branches in braces: tasks side by side never part, a bar stands where they part later on."""
    roots = _parts(tree, tuple(range(tree.num_tasks)), names)
    text = " ".join("{" + part.removeprefix("(").removesuffix(")") + "}" for part in roots)
    if len(text) <= LONGEST:
        return text
    if tree.branches[-1] == 1:
        return "all tasks together"
    if tree.branches[0] == tree.num_tasks:
        return "every task alone"
    return f"{', '.join(map(str, tree.branches))} branches"


def _parts(tree: BranchTree, tasks: tuple[int, ...], names: Sequence[str]) -> list[str]:
    """The branches that some tasks of one branch first part into; one part where they never do."""
    for location in range(tree.num_locations):
        branches = [branch for branch in tree.members(location) if branch[0] in tasks]
        if len(branches) > 1:
            inner = [_parts(tree, branch, names) for branch in branches]
            return [part[0] if len(part) == 1 else f"({' | '.join(part)})" for part in inner]
    return [" ".join(names[task] for task in tasks)]


def splits(tree: BranchTree) -> str:
    """Map a tree to the locations at which branches leave it."""
    counts = (1, *tree.branches)
    found = [str(d) for d in range(1, len(counts)) if counts[d] > counts[d - 1]]
    return f"splits at {', '.join(found)}" if found else ""


def _delta(row: Row) -> tuple[str, str]:
    spread = row.get("delta_mtl_std")
    return f"Δ {percent_text(row['delta_mtl'])} %", "" if spread is None else f"± {spread:.1f}"


def _reached(line: Row, deltas: Mapping[str, float]) -> str:
    if line["label"] in deltas:
        return f"Δ {percent_text(deltas[line['label']])} %"
    return "" if line.get("mean") is None else f"mean {value_text(line['mean'])}"


def _more(count: int) -> list[str]:
    return [f"and {count - MANY} more"] if count > MANY else []
