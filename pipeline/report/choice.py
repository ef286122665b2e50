"""Networks of all strategies and a budget -> which one to take, as far as noise lets one say.

A network is picked on validation and compared on test.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import mean, stdev

from pipeline.report.network import SINGLE, Contender, Network
from pipeline.report.noise import Noise, noise_of
from pipeline.report.number_texts import count_text, percent_text
from pipeline.report.study import Baseline, Study, distinct

TREES = "trees"
NAMED = 3  # networks that a sentence names
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Choice:
    """For a budget: the best network on validation and the next; on test, those not told from it and those ahead.

    `least_lead` is the greatest lead that may still be noise.
    """

    best: Contender
    runner_up: Contender | None
    equals: Sequence[Contender]
    ahead: Sequence[Contender]
    least_lead: float | None


def contenders(study: Study) -> list[Contender]:
    """Map a study to every network or set of networks for all tasks, each once: baselines, trees, other strategies.

    Those whose Δ_MTL is not a number are left out.
    """
    singles = [_single(task, row) for task, row in study.baselines.items()]
    found = [Contender(network=_together(study, singles), group="single-task networks")]
    for network, label in distinct(study.trees):
        sketch = {"tree": [list(row) for row in study.search.chosen[network.name].groups]}
        found.append(Contender(network=replace(network, label=f"{label} tree"), group=TREES, sketch=sketch))
    for chapter in study.chapters:
        mine = list(chapter.contenders([*singles, *study.trees]))
        labels = {network.name: label for network, label in distinct([item.network for item in mine])}
        for item in mine:
            if item.network.name in labels:
                named = replace(item.network, label=labels[item.network.name])
                found.append(replace(item, network=named))
    return [item for item in found if all(map(isfinite, [*study.deltas(item.network), *_val(study, item)]))]


def limits(study: Study) -> list[tuple[str, Mapping[str, float]]]:
    """The budgets asked for: each as people read it, with the most that it allows in each unit."""
    shared = study.search.chosen["shared"]
    found = {}
    for tree in study.search.asked:
        most = {}
        for part in tree.request.split(", "):
            unit, _, size = part.rpartition(" ")
            unit = unit or study.search.unit
            whole = {"params": shared.params, "flops": shared.flops}[unit]
            most[unit] = float(size[:-1]) * whole if size.endswith("x") else float(size)
        found[tree.label] = most
    return list(found.items())


def choose(
    study: Study, found: Sequence[Contender], noise: Noise, most: Mapping[str, float] | None = None
) -> Choice | None:
    """Map contenders and a budget, or none, to the choice; None where nothing is small enough."""
    within = [
        item
        for item in found
        if all(getattr(item.network, unit) <= size * (1 + ROUNDING) for unit, size in (most or {}).items())
    ]
    ranked = sorted(within, key=lambda item: (-mean(_val(study, item)), item.network.params))
    if not ranked:
        return None
    best, others = ranked[0], ranked[1:]
    leads = [noise.least_lead(_seeds(best), _seeds(item)) for item in others]
    pairs = [(item, _ahead(study, best, item), lead) for item, lead in zip(others, leads, strict=True)]
    return Choice(
        best=best,
        runner_up=others[0] if others else None,
        equals=[item for item, ahead, lead in pairs if lead is None or abs(ahead) <= lead],
        ahead=[item for item, ahead, lead in pairs if lead is not None and ahead < -lead],
        least_lead=max((lead for lead in leads if lead is not None), default=None),
    )


def choice_sentences(study: Study) -> Iterator[tuple[str, str]]:
    """Yield for each budget asked for, and for any size, its label and which network to take; then what noise is."""
    found = contenders(study)
    noise = noise_of(study, [item.network for item in found])
    for label, most in limits(study):
        choice = choose(study, found, noise, most)
        amounts = " and ".join(_amount(unit, size) for unit, size in most.items())
        yield f"{label} ({amounts})", _sentence(study, choice) if choice else "Nothing that was trained is so small."
    if choice := choose(study, found, noise):
        yield "any size", _sentence(study, choice)
    yield "noise", noise.words


def _sentence(study: Study, choice: Choice) -> str:
    best, second = choice.best, choice.runner_up
    if second is None:
        return f"{_words(study, best)}: nothing else that was trained is so small."
    ahead = _ahead(study, best, second)
    if choice.least_lead is None:
        side = "ahead of" if ahead > 0 else "behind"
        start = f"Best on validation is {_words(study, best)}, on test {abs(ahead):.1f} points {side} the next,"
        return f"{start} {second.network.label}. Nothing says whether that is more than chance."
    if choice.ahead:
        names = _names(study, choice.ahead)
        start = f"No clear winner: validation and test disagree. Best on validation is {_words(study, best)},"
        return f"{start} but on test by more than noise ({choice.least_lead:.1f} points) ahead of it: {names}."
    if not choice.equals:
        return (
            f"{_words(study, best)}. On test it is {ahead:.1f} points ahead of the next, {second.network.label}, and"
            f" ahead of everything else by more than noise ({choice.least_lead:.1f} points)."
        )
    smallest = min([best, *choice.equals], key=lambda item: item.network.params)
    return (
        f"No clear winner. Best on validation is {_words(study, best)}; on test it cannot be told from"
        f" {_names(study, choice.equals)}, since leads below {choice.least_lead:.1f} points may be noise. The smallest"
        f" of them: {smallest.network.label}."
    )


def _names(study: Study, items: Sequence[Contender]) -> str:
    names = "; ".join(_words(study, item) for item in items[:NAMED])
    return f"{names}; and {len(items) - NAMED} more" if len(items) > NAMED else names


def _words(study: Study, item: Contender) -> str:
    deltas = study.deltas(item.network)
    spread = f" ± {stdev(deltas):.1f}" if len(deltas) > 1 else ""
    size = count_text(item.network.params)
    return f"{item.network.label} ({size} parameters, Δ_MTL {percent_text(mean(deltas))}{spread} %)"


def _amount(unit: str, size: float) -> str:
    return f"{count_text(size)} parameters" if unit == "params" else f"{count_text(size / 2)} multiply-adds"


def _ahead(study: Study, one: Contender, other: Contender) -> float:
    return mean(study.deltas(one.network)) - mean(study.deltas(other.network))


def _val(study: Study, item: Contender) -> list[float]:
    return study.deltas(item.network, "val")


def _seeds(item: Contender) -> int:
    return len(item.network.seeds)


def _single(task: str, row: Baseline) -> Network:
    return Network(
        name=task,
        label=task,
        strategy="single",
        request="",
        params=row.params,
        flops=row.flops,
        seconds=row.seconds,
        seeds=(0,),
        keys=(row.job,),
        epochs=(row.epoch,),
        val={task: (row.val,)},
        test={task: (row.test,)},
    )


def _together(study: Study, singles: Sequence[Network]) -> Network:
    """The single-task networks as one set."""
    return Network(
        name=SINGLE,
        label="single-task networks",
        strategy="single",
        request="",
        params=sum(one.params for one in singles),
        flops=sum(one.flops for one in singles),
        seconds=sum(one.seconds for one in singles),
        seeds=(study.config.seed,),
        keys=tuple(key for one in singles for key in one.keys),
        epochs=tuple(epoch for one in singles for epoch in one.epochs),
        val={task: value for one in singles for task, value in one.val.items()},
        test={task: value for one in singles for task, value in one.test.items()},
    )
