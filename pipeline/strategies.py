"""The sections of params.yaml that belong to one strategy each."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from pipeline.settings_file import Positive, Settings, is_number

Amount = str | int | float  # of parameters or FLOPs, or as in "1.3x"


def _budget(written: Any) -> Amount | dict[str, Amount]:
    """One reading and one message, where a union of types would give five."""
    if isinstance(written, Mapping) and set(written) == {"params", "flops"}:
        return {str(unit): _amount(written[unit]) for unit in written}
    if isinstance(written, Mapping | list):
        raise ValueError(f"{written!r} is no budget: give one number, or {{params: .., flops: ..}}")
    return _amount(written)


def _amount(written: Any) -> Amount:
    number = written.removesuffix("x") if isinstance(written, str) else str(written)
    if isinstance(written, bool) or not is_number(number) or not 0 < float(number) < float("inf"):
        raise ValueError(f"{written!r} is no budget: give a number, or a multiple of the shared network as 1.3x")
    return written


class Trees(Settings):
    """Budgets: a number of `unit`, or relative to the fully shared network, as in `1.3x`; or {params: .., flops: ..}.

    time_limit_s    what `method: auto` may take on a nominal core; beyond, it turns to the next weaker method
    """

    budgets: Annotated[list[Annotated[Any, PlainValidator(_budget)]], Field(min_length=1)]
    unit: Literal["params", "flops"] = "params"
    method: Literal["auto", "exhaustive", "exact", "beam"] = "auto"
    time_limit_s: Annotated[float, Field(gt=0)] = 60.0
    share_first: bool = False


class Branched(Settings):
    """Each tree is trained once for every seed.

    start         backbone = the backbone's own first weights; members = the mean of its tasks' single-task networks
    loss_weights  fixed = the tasks' weights (uniform where all are 1); uncertainty = learned (Kendall et al. 2018)
    exhaustive    also train every other tree, to see whether those of lower cost do better (paper Fig. 5)
    """

    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    start: Literal["backbone", "members"] = "backbone"
    loss_weights: Literal["fixed", "uncertainty"] = "fixed"
    exhaustive: bool = False


class Taps(Settings):
    """A base adapted to tasks, once for each task, λ and learning rate; the baselines on the same schedule.

    base                shared = the fully shared tree of all tasks (the paper's memory-efficient joint variant); or a
                        task, for its single-task network; or pretrained = timm's weights
    lams                every λ to try; none leaves the strategy out of the study
    tasks               those to adapt to; by default all but the base's own
    joint               one network for all tasks, whose base trains with them (Eq. 4), in place of one network per task
    gated               glob patterns over the backbone's layer names; the last that matches decides, "!" leaves out
    score_lr            the scores' learning rate, as a multiple of the weights'
    weight_decay        of δ, of the baselines' weights and of heads
    baselines           names in models/adaptation; `baseline_settings` holds their own settings
    halving             epochs after which only the better half of the learning rates goes on, per task, method and λ
    budget              the chosen λ is the best on validation among those that add at most this share of parameters
    reference_errors    of tasks, for the S-score; by default those of fine-tuning, where it is a baseline
    """

    base: str = "shared"
    tasks: list[str] = []
    joint: bool = False
    lams: list[Annotated[float, Field(ge=0)]] = [0.25, 1.0]
    lrs: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [5e-3]
    epochs: Positive = 10
    optimiser: Literal["adamw", "sgd", "lamb"] = "sgd"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    gated: Annotated[list[str], Field(min_length=1)] = ["*", "!*patch_embed*"]
    threshold: Annotated[float, Field(gt=0)] = 0.1
    score: Annotated[float, Field(gt=0)] = 0.15
    score_lr: Annotated[float, Field(gt=0)] = 1.0
    lam_warmup_epochs: Annotated[int, Field(ge=0)] = 0
    halving: list[Positive] = []
    baselines: list[str] = []
    baseline_settings: dict[str, dict[str, float]] = {}
    budget: Annotated[float, Field(ge=0)] | None = None
    reference_errors: dict[str, Annotated[float, Field(gt=0)]] = {}
