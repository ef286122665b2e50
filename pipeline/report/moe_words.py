"""Results of the networks with experts -> what they say in plain words, also where they are behind."""

from statistics import mean

from pipeline.report.found_moe import DENSE, SCRATCH, Moe, Run
from pipeline.report.number_texts import count_text, percent_text


def lead(moe: Moe) -> str:
    """What the network with experts reaches at the chosen λ, and what the penalty does to its experts."""
    return f"{_result(moe)} {_information(moe)} {_behind(moe)}".rstrip()


def _result(moe: Moe) -> str:
    """Δ_MTL and parameters beside those without experts and of the single-task networks."""
    run, dense, scratch = moe.chosen, moe.method(DENSE), moe.method(SCRATCH)
    beside = f" (they have {count_text(scratch.params)})" if scratch else ""
    text = (
        f"MoE, λ = {run.lam:g}{' chosen on validation' if len(moe.by_lam) > 1 else ''}, {count_text(run.params)}"
        f" parameters: Δ_MTL {percent_text(run.delta_mtl)} % on test against the single-task networks{beside}"
    )
    if free := _without_penalty(moe):
        text += f"; without the penalty {percent_text(free.delta_mtl)} %"
    if dense:
        text += f"; without experts {percent_text(dense.delta_mtl)} % with {count_text(dense.params)}"
    return f"{text}."


def _information(moe: Moe) -> str:
    if len(moe.datasets) == 1:
        return "With one data set there is nothing that experts could tell apart."
    free = _without_penalty(moe)
    beside = f", {_mean(free)} without the penalty" if free else ""
    return (
        f"Mutual information of expert and data set, mean of {len(moe.layers)}"
        f" layer{'s' if len(moe.layers) > 1 else ''}: {_mean(moe.chosen)} nats{beside}, {moe.most_information:.2f} at"
        " most."
    )


def _without_penalty(moe: Moe) -> Run | None:
    """The network at λ = 0, where that is not the chosen one."""
    return next((run for run in moe.by_lam if run.lam == 0 and run is not moe.chosen), None)


def _mean(run: Run) -> str:
    return f"{mean(run.mi):.2f}"


def _behind(moe: Moe) -> str:
    """The best of the other methods that do better, if there is one; of those as good the smallest."""
    better = [run for run in moe.others if run.delta_mtl > moe.chosen.delta_mtl]
    if not better:
        return ""
    best = max(better, key=lambda run: (run.delta_mtl, -run.params))
    size = "no more" if best.params <= moe.chosen.params else "more"
    return (
        f"Better with {size} parameters ({count_text(best.params)}): {best.label}, Δ_MTL"
        f" {percent_text(best.delta_mtl)} %."
    )
