"""Experts for a comparison: a router for each task, and as many experts as a budget has room for."""

from collections.abc import Mapping

from benchmarks.compared.compute import epochs_for
from benchmarks.compared.study import Row, Study, network_row, routed
from pipeline.budgets import requests
from pipeline.config import Config
from pipeline.moe_jobs import Trial, joint_tasks, moe_spec, moe_trials
from pipeline.plan_costs import network_params, unit_costs
from pipeline.results import delta_of


def moe_rows(study: Study, single: Mapping[str, Row], target: float) -> list[dict]:
    """Within each budget the network with experts whose λ is best on validation, trained at a compute."""
    return [
        _row(study, single, target, request.text, experts_within(study, request.limits["params"]))
        for request in requests(study.config.trees, unit_costs(study.shared))
    ]


def experts_within(study: Study, limit: float) -> int:
    """The most experts with which a network has at most so many parameters. ValueError where top_k are too many."""
    least = study.config.moe.top_k

    def params(experts: int) -> int:
        config = _config(study.config, experts, 1)
        return network_params(moe_spec(config, study.manifests, joint_tasks(config)))

    fewest = params(least)
    if fewest > limit:
        raise ValueError(f"moe.top_k {least}: so many experts have more than {limit:,.0f} parameters")
    return least + int((limit - fewest) // (params(least + 1) - fewest))  # each expert costs the same


def _row(study: Study, single: Mapping[str, Row], target: float, budget: str, experts: int) -> dict:
    def trials(epochs: int) -> list[Trial]:
        return moe_trials(_config(study.config, experts, epochs), study.manifests, single)

    def one(epochs: int) -> float:
        return study.flops([trials(epochs)[0].job])

    epochs = epochs_for(target, one)
    tried = trials(epochs)
    results = study.trained([trial.job for trial in tried])
    pairs = list(zip(tried, results, strict=True))
    chosen, result = max(pairs, key=lambda pair: delta_of(pair[1], single, "val"))
    return network_row(
        f"experts {budget}",
        "experts",
        budget,
        result,
        single,
        params=result["params"],
        flops=one(epochs),
        further=(len(tried) - 1) * one(epochs),
        epochs={"joint": epochs},
        experts=experts,
        lam=chosen.lam,
    )


def _config(config: Config, experts: int, epochs: int) -> Config:
    moe = config.moe.model_copy(update={"experts": experts, "epochs": epochs, "baselines": []})
    return routed(config).model_copy(update={"moe": moe})
