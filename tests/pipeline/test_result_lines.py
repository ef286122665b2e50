"""Lines that stages end with, and how lines fold and align."""

from itertools import chain

import pytest

from models.branch_tree import BranchTree
from models.tree_search import enumerate_trees
from pipeline import result_lines
from pipeline.result_lines import (
    affinity_lines,
    bracketed,
    changed_lines,
    choice_lines,
    method_lines,
    metric_cells,
    mode_lines,
    network_lines,
    splits,
    tree_lines,
)
from pipeline.terminal import LABEL, LINE, folded, labelled, timed

NAMES = ("seg", "depth", "edge", "count")


@pytest.mark.parametrize(
    ("groups", "text", "where"),
    [
        ([(0, 0, 0, 0)] * 3, "{seg depth edge count}", ""),
        ([(0, 1, 2, 3)] * 3, "{seg} {depth} {edge} {count}", "splits at 1"),
        ([(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 1)], "{seg depth edge} {count}", "splits at 2"),
        ([(0, 0, 0, 1), (0, 0, 1, 2), (0, 0, 1, 2)], "{seg depth | edge} {count}", "splits at 1, 2"),
        ([(0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 2, 3)], "{(seg | depth) | edge} {count}", "splits at 1, 2, 3"),
    ],
)
def test_a_tree_in_brackets(groups: list[tuple[int, ...]], text: str, where: str) -> None:
    tree = BranchTree(groups)
    assert bracketed(tree, NAMES) == text
    assert splits(tree) == where


def test_two_trees_have_the_same_words_only_where_they_part_the_same_tasks_in_the_same_order() -> None:
    """Words and locations together tell trees of three tasks apart, but for where which of two branches parts first."""
    words = {(bracketed(tree, NAMES[:3]), splits(tree)) for tree in enumerate_trees(3, 3)}
    assert len(words) == len(list(enumerate_trees(3, 3))) == 22


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (BranchTree([[0] * 40, [task // 10 for task in range(40)]]), "1, 4 branches"),
        (BranchTree.shared(40, 2), "all tasks together"),
        (BranchTree.split(40, 2), "every task alone"),
    ],
)
def test_a_tree_of_many_tasks_is_its_numbers_of_branches(tree: BranchTree, text: str) -> None:
    assert bracketed(tree, [f"attribute_{task}" for task in range(40)]) == text


def test_trees_with_what_they_reached() -> None:
    tree = BranchTree([(0, 0), (0, 1)])
    rows = [
        ("shared", BranchTree.shared(2, 2), {"params": 464_326, "delta_mtl": -2.14, "delta_mtl_std": None}),
        ("1.7x", tree, {"params": 12_774_598, "delta_mtl": 0.04, "delta_mtl_std": 0.31}),
    ]
    assert tree_lines(rows, NAMES[:2]).splitlines() == [
        "shared  {seg depth}     0.46 M  Δ −2.1 %",
        "1.7x    {seg} {depth}  12.77 M   Δ 0.0 %  ± 0.3",
    ]
    assert tree_lines([("1.7x", tree, {"params": 1_000_000})], NAMES[:2]) == "1.7x  {seg} {depth}  1.00 M  splits at 2"


def test_affinities_by_location_and_the_most_unlike_pair() -> None:
    maps = [[[1.0, 0.9, 0.8], [0.9, 1.0, 0.7], [0.8, 0.7, 1.0]], [[1.0, 0.5, 0.3], [0.5, 1.0, -0.1], [0.3, -0.1, 1.0]]]
    assert affinity_lines(NAMES[:3], maps).splitlines() == [
        "mean r_s at locations 1 to 2: 0.80  0.23",
        "most unlike: depth – edge, −0.10 at location 2",
    ]
    assert affinity_lines(NAMES[:1], [[[1.0]]]) == "one task: no pair to compare"


def test_methods_show_layers_where_they_have_gates_and_the_change_where_it_is_known() -> None:
    runs = [
        {"name": "a", "layers_share": 0.25},
        {"name": "b", "layers_share": 0.75},
        {"name": "c", "layers_share": None},
    ]
    methods = [
        {"label": "TAPS λ=0.1", "runs": {"seg": "a", "depth": "b"}, "multiple": 1.5, "mean": None},
        {"label": "fine tuning", "runs": {"seg": "c"}, "multiple": 5.0, "mean": 0.81},
    ]
    assert method_lines(methods, runs, {"TAPS λ=0.1": -1.26}).splitlines() == [
        "TAPS λ=0.1   50 % of layers  1.50 × parameters    Δ −1.3 %",
        "fine tuning                  5.00 × parameters  mean 0.810",
    ]


def test_networks_and_modes_are_tables() -> None:
    lines = [{"label": "MoE λ=0.1", "params": 732_553, "delta_mtl": 1.0}]
    assert network_lines(lines) == "MoE λ=0.1  0.73 M  Δ +1.0 %"
    modes = [{"label": "router only", "trained_params": 512, "model_params": 491_971, "test": {"view": 0.5833}}]
    assert mode_lines(modes) == "router only  0.1 % of 0.49 M trained  view 0.583"


def test_what_was_forgotten_is_what_changed() -> None:
    kept, lost = [[0.5, None], [0.5, 0.6]], [[0.5, 0.1, None], [0.4, 0.1002, 0.7], [0.3, 0.1, 0.65]]
    assert changed_lines("own", ["a", "b"], kept) == "one after another, own: every task as it was when it was learned"
    assert changed_lines("LwF", ["a", "b", "c"], lost) == "one after another, LwF:\na 0.500 → 0.300  c 0.700 → 0.650"


def test_choices_are_wrapped_and_noise_is_left_to_the_page() -> None:
    sentence = "No clear winner. " * 12
    lines = choice_lines([("1.7x", sentence), ("any size", "Short."), ("noise", "Noise: one seed.")]).splitlines()
    assert lines[0].startswith("1.7x: No clear")
    assert lines[1].startswith("  ")
    assert lines[-1] == "any size: Short."
    assert max(map(len, lines)) <= LINE - LABEL
    assert " ".join("".join(f"{line}\n" for line in lines[:-1]).split()) == f"1.7x: {sentence}".strip()


@pytest.mark.parametrize("before", range(LINE))
def test_a_number_stays_beside_its_unit(before: int) -> None:
    for line in choice_lines([("x" * before, "+6.0 % of 0.77 M parameters")]).splitlines():
        assert not line.lstrip().startswith(("%", "M "))


def test_many_tasks_are_not_all_named() -> None:
    values = {f"task_{number}": 0.5 for number in range(40)}
    text = metric_cells(values, dict.fromkeys(values, "accuracy"))
    assert text.endswith("and 28 more")
    assert text.count("accuracy 0.500") == result_lines.MANY


def test_lines_are_no_longer_than_they_may_be() -> None:
    cells = [f"{'x' * (number % 17)} {number}" for number in range(60)]
    block = labelled("pretrain", timed(folded(cells), "2.4 min"))
    lines = block.splitlines()
    assert lines[0].endswith("  2.4 min")
    assert len(lines[0]) == LINE
    assert max(map(len, lines)) <= LINE
    assert all(line.startswith(" " * LABEL) for line in lines[1:])
    words = list(chain.from_iterable(line[LABEL:].split() for line in lines))
    assert [word for word in words if word.isdigit()] == [str(number) for number in range(60)]


def test_a_long_first_line_keeps_its_time() -> None:
    assert timed("x" * 120, "3 s") == f"{'x' * 120}  3 s"
