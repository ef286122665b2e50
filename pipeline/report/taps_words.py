"""Results of TAPS -> what they say in plain words, also where it is behind."""

from collections.abc import Mapping
from statistics import mean

from models.accounting import delta_mtl
from pipeline.report.found_taps import Method, Taps
from pipeline.report.number_texts import percent_text
from pipeline.report.taps_figures import EXTRACTOR, FINE_TUNING


def lead(taps: Taps) -> str:
    """What TAPS at the chosen λ adds and reaches, and which method does better with no more."""
    chosen, extractor = taps.chosen, _method(taps, EXTRACTOR)
    shares = [run.layers_share or 0.0 for task in taps.tasks if (run := taps.of(chosen, task))]
    tuned = _method(taps, FINE_TUNING)
    beside = f" (fine-tuning {tuned.multiple:.2f} ×)" if tuned else ""
    text = (
        f"TAPS, {_lam_words(taps)}, {_base_words(taps)}: {100 * mean(shares):.0f} % of the layers are a"
        f" task's own (mean of the tasks), {chosen.multiple:.2f} × the base network's parameters for all of"
        f" them{beside}. On test it is {_against(taps, tuned)}"
    )
    if extractor and (changes := _changes(taps, chosen, extractor)):
        text += f"; against the fixed base network with new heads alone {percent_text(mean(changes.values()))} %"
    return f"{text}. {_behind(taps)}".rstrip()


def _base_words(taps: Taps) -> str:
    """What the tasks start from, and whether it was trained with them."""
    names = {"shared": "the fully shared network", "pretrained": "the pretrained backbone"}
    words = f"from {names.get(taps.base.kind, f'the network of {taps.base.name}')}"
    return f"{words}, which was trained with all tasks" if taps.joint else words


def _lam_words(taps: Taps) -> str:
    lams = sorted({run.lam for target in taps.tasks.values() if (run := taps.run[target.chosen]).lam is not None})
    if len(lams) == 1:
        return f"λ = {lams[0]:g}, chosen on validation"
    return f"λ between {lams[0]:g} and {lams[-1]:g}, chosen for each task on validation"


def _against(taps: Taps, tuned: Method | None) -> str:
    """TAPS against fine-tuning: the mean relative change, on how many tasks it is behind, and the worst of them."""
    changes = _changes(taps, taps.chosen, tuned) if tuned else {}
    if not changes:
        return "not compared with fine-tuning, which was not trained"
    size = mean(changes.values())
    behind = {task: change for task, change in changes.items() if change < 0}
    side = "behind" if size < 0 else "ahead of"
    text = f"{abs(size):.1f} % {side} fine-tuning (mean relative change)"
    if not behind:
        return f"{text}, and behind on no task"
    worst = min(behind, key=lambda task: behind[task])
    return f"{text}, behind on {len(behind)} of {len(changes)} tasks, most on {worst} ({percent_text(behind[worst])} %)"


def _behind(taps: Taps) -> str:
    """The method that does best of those that are better than TAPS with no more parameters, if there is one."""
    better = {}
    for row in taps.others:
        changes = _changes(taps, row, taps.chosen)
        if row.multiple <= taps.chosen.multiple and len(changes) == len(taps.tasks) and mean(changes.values()) > 0:
            better[row.label] = (mean(changes.values()), row.multiple)
    if not better:
        return ""
    name = max(better, key=lambda label: better[label])
    change, multiple = better[name]
    return f"With no more parameters ({multiple:.2f} ×) {name} does better: {percent_text(change)} % against TAPS."


def _changes(taps: Taps, row: Method, reference: Method) -> Mapping[str, float]:
    """Each task's signed relative change on test, in percent; a reference of 0 allows none."""
    return {
        task: delta_mtl({task: row.test[task]}, reference.test, {task: target.higher_is_better})
        for task, target in taps.tasks.items()
        if task in row.test and reference.test.get(task)
    }


def _method(taps: Taps, name: str) -> Method | None:
    return next((row for row in taps.others if row.method == name), None)
