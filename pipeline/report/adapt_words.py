"""Results of adapting -> what they say in plain words, also where they are behind."""

from pipeline.report.found_adapt import Adapt, Continual, Mode, Taught
from pipeline.report.mode_names import mode_name
from pipeline.report.number_texts import percent_text
from pipeline.report.records import mean_of

# What a mode may save: its share of full fine-tuning, up to which it counts here, and of what it is the share.
SAVINGS = {
    "trained_share": (0.25, "of the trained parameters"),
    "params_share": (0.95, "of the model's parameters"),
    "flops_share": (0.95, "of the multiply-adds"),
}


def lead(adapt: Adapt) -> str:
    """What the modes that save reach against full fine-tuning, and what is forgotten."""
    count, full = len(adapt.tasks), adapt.full
    text = f"{adapt.base.name} adapted to {count} new task{'s' if count > 1 else ''}: "
    text += f"{_against(adapt, full) if full else _range(adapt)}."
    if not adapt.continual:
        return text
    forgotten = [_forgotten(adapt.continual, method) for method in adapt.continual.methods]
    return f"{text} Learned one after another: {'; '.join(forgotten)}."


def _against(adapt: Adapt, full: Mode) -> str:
    """Full fine-tuning against the single-task networks, and for each saving the mode that is best on validation."""
    delta = adapt.delta(full)
    reached = "" if delta is None else f"Δ_MTL {percent_text(delta)} % on test with full fine-tuning. "
    parts = []
    for share, (most, words) in SAVINGS.items():
        scores = {
            mode.mode: score
            for mode in adapt.modes
            if getattr(mode, share) <= most and (score := adapt.against(mode, full, "val")) is not None
        }
        best = adapt.mode(max(scores, key=lambda name: scores[name])) if scores else None
        change = adapt.against(best, full) if best else None
        if best and change is not None:
            size = f"{100 * getattr(best, share):.1f} % {words}"
            parts.append(f"with {size} {percent_text(change)} % ({mode_name(best.mode)})")
    saved = f"against it, by mean relative change: {', '.join(parts)}" if parts else "no mode saves much"
    return f"{reached}{saved[0].upper()}{saved[1:]}"


def _range(adapt: Adapt) -> str:
    """Without full fine-tuning: the least and the greatest Δ_MTL of the modes."""
    deltas = {mode_name(mode.mode): delta for mode in adapt.modes if (delta := adapt.delta(mode)) is not None}
    if not deltas:
        return "no Δ_MTL, for the single-task networks are at 0"
    ends = [min(deltas, key=lambda name: deltas[name]), max(deltas, key=lambda name: deltas[name])]
    words = [f"{percent_text(deltas[name])} % ({name})" for name in dict.fromkeys(ends)]
    return f"Δ_MTL {' to '.join(words)} on test; full fine-tuning was not trained"


def _forgotten(continual: Continual, method: Taught) -> str:
    """What a method did to the tasks that it knew before the last step."""
    last = len(continual.steps) - 1
    before = [task for task in continual.tasks if continual.learned(method, task) < last]
    if all(continual.same(method, last, task) for task in before):
        return f"{method.label} leaves every earlier task exactly as it was"
    change = mean_of(continual.change(method, last, task) for task in before)
    size = "by an unknown share, from 0" if change is None else f"by {percent_text(change)} % on average"
    return f"{method.label} changes the earlier tasks {size}"
