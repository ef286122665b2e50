"""Results -> the sentences at the head of the page: what is recommended, and what the numbers do not say."""

from collections.abc import Iterator
from statistics import mean, stdev

from models.branch_tree import BranchTree
from pipeline.report.found_trees import Groups, gap
from pipeline.report.network import Network
from pipeline.report.number_texts import count_text, large_text, percent_text, value_text
from pipeline.report.study import Study, distinct
from pipeline.report.style import MANY
from pipeline.report.tables import best_on_validation

GENERATED = "scenes"  # the reader whose images are drawn by a program
CLOSE = 10.0  # percent: a single-task network this near to the trivial predictor has learned little


def tree_words(groups: Groups, tasks: list[str]) -> str:
    """Map a tree to words: runs of locations with the same branches, and who shares a branch."""
    tree = BranchTree(groups)
    runs: list[tuple[int, int]] = []
    for d in range(tree.num_locations):
        if runs and tree.groups[d] == tree.groups[runs[-1][0]]:
            runs[-1] = (runs[-1][0], d)
        else:
            runs.append((d, d))
    words = []
    for first, last in runs:
        where = f"location {first + 1}" if first == last else f"locations {first + 1}–{last + 1}"
        words.append(f"{where}: {_branches(tree.members(first), tasks)}")
    return "; ".join(words)


def _branches(members: tuple[tuple[int, ...], ...], tasks: list[str]) -> str:
    if len(tasks) == 1:
        return tasks[0]
    if len(members) == 1:
        return "all tasks together"
    if len(members) == len(tasks):
        return "every task alone"
    if len(tasks) > MANY:
        return f"{len(members)} branches, the largest for {max(map(len, members))} tasks"
    return " | ".join(" + ".join(tasks[t] for t in branch) for branch in members)


def recommendations(study: Study) -> Iterator[tuple[str, str, str]]:
    """Yield for each budget its label, the tree in words with its result, and a caveat (empty where there is none)."""
    for network in study.trees:
        if not network.request:
            continue
        val = percent_text(mean(study.deltas(network, "val")))
        words = tree_words(study.search.chosen[network.name].groups, study.tasks)
        size = f"{count_text(network.params)} parameters"
        text = f"{size}, Δ_MTL {_delta(study, network)} % on test ({val} % on validation). {_capital(words)}."
        yield network.label, text, _caveat(study, network)


def _caveat(study: Study, network: Network) -> str:
    twins = [other.name for other in study.trees if other.keys == network.keys and other.name in ("shared", "split")]
    if twins:
        return f"This is the fully {twins[0]} network."
    score = mean(study.deltas(network, "val"))
    smaller = [other for other in study.networks if other.params < network.params]
    better = max(smaller, key=lambda other: mean(study.deltas(other, "val")), default=None)
    if better is None or mean(study.deltas(better, "val")) <= score:
        return ""
    return (
        f"The smaller network {better.label} did better on validation"
        f" ({percent_text(mean(study.deltas(better, 'val')))} %)."
    )


def lead(study: Study) -> str:
    """What was compared, how the trees were found, and which network is best by validation."""
    best, networks = best_on_validation(study), distinct(study.networks)
    label = next(label for network, label in networks if network.keys == best.keys)
    counts = [(len(study.tasks), "task"), (study.config.backbone.locations, "location")]
    tasks, locations = (_number(count, word) for count, word in counts)
    return (
        f"{tasks}, {locations} where a tree may branch, {_number(len(study.trained.trees), 'different tree')} trained"
        f" of {large_text(study.search.trees_in_all)}. {_found(study)} Best on validation of one network for all:"
        f" {label} ({count_text(best.params)} parameters), which reaches Δ_MTL {_delta(study, best)} % on test."
    )


def _found(study: Study) -> str:
    """How the trees of the budgets were found, and how far they may be from the best ones."""
    trees = study.search.asked
    if all(tree.optimal for tree in trees):
        return "For each budget no tree costs less than the one chosen; this is proved."
    methods = " and ".join(dict.fromkeys(f"{tree.method} search" for tree in trees if not tree.optimal))
    largest = max(gap(tree.cost, tree.lower_bound) for tree in trees)
    return (
        f"The trees were found by {methods} and not proved best: the least possible cost is at most {largest:.1f} %"
        " below theirs."
    )


def _delta(study: Study, network: Network) -> str:
    """Its Δ_MTL on test, with the standard deviation where it has several seeds."""
    deltas = study.deltas(network)
    return percent_text(mean(deltas)) + (f" ± {stdev(deltas):.1f}" if len(deltas) > 1 else "")


def notes(study: Study) -> Iterator[str]:
    """What a reader must know before believing the numbers."""
    made = [name for name, item in study.config.datasets.items() if item.reader == GENERATED]
    if made:
        yield f"{', '.join(made)}: generated data. It shows that the pipeline works and says nothing about real images."
    seeds = min(len(network.seeds) for network in study.trees)
    if seeds == 1:
        yield (
            "One seed per network: how far results differ from seed to seed is not known, and differences that are not"
            " larger than that prove nothing; it may well be a few percent. Set branched.seeds to several to see it."
        )
    else:
        noise = mean(stdev(study.deltas(network)) for network, _ in distinct(study.trees))
        yield (
            f"{seeds} seeds per tree; from seed to seed Δ_MTL varies by {noise:.1f} points (standard deviation, mean of"
            " the trees): smaller differences prove nothing. The single-task networks that all are compared with have"
            " one seed."
        )
    if study.epochs < 5:
        yield f"{_number(study.epochs, 'epoch')} of training: the networks are far from trained out."
    weak = [task for task in study.tasks if _gain_over_trivial(study, task) < CLOSE]
    if weak:
        pairs = ", ".join(
            f"{task} ({study.baselines[task].metric} {value_text(study.baselines[task].test)}, trivial"
            f" {value_text(study.baselines[task].trivial_test)})"
            for task in weak[:5]
        )
        more = f" and {len(weak) - 5} more" if len(weak) > 5 else ""
        yield (
            f"Hardly better than the best constant prediction: the single-task network of {pairs}{more}."
            " Changes against it mean little."
        )
    faint = [row for row in study.affinity if row["task_a"] < row["task_b"] and row["value"] <= row["null_high"]]
    if faint:
        total = sum(row["task_a"] < row["task_b"] for row in study.affinity)
        yield f"{len(faint)} of {total} affinities do not stand out from shuffled images (hatched below)."
    if len(study.tasks) == 1:
        yield "One task: there is nothing to share, all networks are the same."


def _gain_over_trivial(study: Study, task: str) -> float:
    """By how many percent of the trivial predictor's value the single-task network is better."""
    row = study.baselines[task]
    gain = row.test - row.trivial_test if row.higher_is_better else row.trivial_test - row.test
    return 100 * gain / abs(row.trivial_test) if row.trivial_test else 100.0


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
