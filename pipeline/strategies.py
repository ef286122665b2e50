"""The sections of params.yaml that belong to one strategy each."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from pipeline.settings_file import Positive, Settings, is_number

Amount = str | int | float  # of parameters or FLOPs, or as in "1.3x"
Written = Amount | dict[Literal["params", "flops"], Amount]


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


def _once(values: list[Any]) -> list[Any]:
    """What is listed twice, or is written alike, would be trained twice under one name."""
    names = [value if isinstance(value, str) else f"{value:g}" for value in values]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is listed twice")
    return values


Names = Annotated[list[str], AfterValidator(_once)]
Budget = Annotated[Any, PlainValidator(_budget, json_schema_input_type=Written)]


class Trees(Settings):
    """Which trees are searched, and how.

    budgets         each a number of `unit`, a multiple of the fully shared network, or {params: .., flops: ..}
    unit            of single numbers, and of the front
    method          auto = the strongest in time; exhaustive and exact prove the least cost, beam a bound below it
    time_limit_s    what `method: auto` may take on a nominal core; beyond, it turns to the next weaker method
    share_first     true = all tasks share the first location
    """

    budgets: Annotated[list[Budget], Field(min_length=1)]
    unit: Literal["params", "flops"] = "params"
    method: Literal["auto", "exhaustive", "exact", "beam"] = "auto"
    time_limit_s: Annotated[float, Field(gt=0)] = 60.0
    share_first: bool = False


class Branched(Settings):
    """How the trees are trained.

    seeds         each tree is trained once for every one of them
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
    lrs                 every learning rate to try; the best on validation is kept
    epochs              of each such job
    optimiser           adamw, sgd or lamb
    weight_decay        of δ, of the baselines' weights and of heads
    gated               glob patterns over the backbone's layer names; the last that matches decides, "!" leaves out
    threshold           a gate is open from this score on
    score               every gate's first
    score_lr            the scores' learning rate, as a multiple of the weights'
    lam_warmup_epochs   in which λ is 0
    halving             epochs after which only the better half of the learning rates goes on, per task, method and λ
    baselines           names in models/adaptation, on the same schedule
    baseline_settings   name of a baseline -> its own settings
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


class Moe(Settings):
    """A backbone with experts, trained on all data sets at once (MTHL), once for every λ; its baselines beside it.

    lams            every λ to try, the weight of the mutual information penalty; none leaves the strategy out
    tasks           those to train jointly; by default all but those of `adapt`
    epochs          by default train's
    experts         of a layer
    top_k           how many of them a token gets
    hidden          an expert's hidden channels; 0 = the MLP's over top_k, so that a token costs what it did
    expert_bias     whether experts have biases
    router_width    outputs of a router per expert; 2 = a noise while training (Shazeer et al. 2017)
    placement       printed = what the paper's sizes fit; text = what it says; or glob patterns over the MLPs' names
    momentum        of the estimates behind the penalty
    upcycled        experts start as slices of the MLP that they replace
    sampling        per_step = a step's batch is of one data set, split over the workers; per_rank = it holds `ranks`
                    batches, each of a data set drawn by itself, as GPUs do it that draw on their own
    ranks           the batches of a step, with per_rank
    baselines       dense (no experts), finetune (each task from the single-task network of `pretrained_on`), scratch
    pretrained_on   the task whose single-task network finetune starts from
    """

    lams: Annotated[list[Annotated[float, Field(ge=0)]], AfterValidator(_once)] = []
    tasks: Names = []
    epochs: Positive | None = None
    experts: Positive = 12
    top_k: Positive = 4
    hidden: Annotated[int, Field(ge=0)] = 0
    expert_bias: bool = True
    router_width: Literal[1, 2] = 1
    placement: Literal["printed", "text"] | Annotated[list[str], Field(min_length=1)] = "printed"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    upcycled: bool = False
    sampling: Literal["per_step", "per_rank"] = "per_step"
    ranks: Positive = 1
    baselines: Annotated[list[Literal["dense", "finetune", "scratch"]], AfterValidator(_once)] = ["dense", "scratch"]
    pretrained_on: str | None = None

    @model_validator(mode="after")
    def _several_ranks(self) -> "Moe":
        if self.sampling == "per_rank" and self.ranks < 2:
            raise ValueError("sampling: per_rank needs ranks, the batches of a step: at least 2")
        return self


class Mode(Settings):
    """One way to adapt a network with experts to a new data set (MTHL, Sec. 3.3): what learns, what is left of it.

    What removes experts goes on from the network that learned a new router (mode "router"), as in the paper, so it
    learns for twice as long as the others.

    learns      all = the whole network; own = a new router, and `experts` of each layer
    experts     how many experts of each layer learn too
    select      which: picked at random, or the most or least used
    prune       the share of each layer's experts that is removed, the least used first
    threshold   experts that get less than this share of the choices are removed
    top_k       experts a token gets, in place of the base's
    adapter     width of a bottleneck after every mixture (Houlsby et al. 2019)
    """

    learns: Literal["all", "own"] = "own"
    experts: Annotated[int, Field(ge=0)] = 0
    select: Literal["random", "most", "least"] = "random"
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    top_k: Positive | None = None
    adapter: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _chooses_among_those_that_learn(self) -> "Mode":
        if self.learns == "all" and self.experts:
            raise ValueError("experts are those that learn beside a new router: leave them out, or use learns: own")
        if self.select != "random" and not self.experts:
            raise ValueError(f"select: {self.select} picks experts that learn: say how many in experts")
        return self

    @property
    def needs_usage(self) -> bool:
        """Whether it must be known first which experts a new router uses."""
        return self.prunes or self.select != "random"

    @property
    def prunes(self) -> bool:
        """Whether experts are removed."""
        return bool(self.prune or self.threshold)


ROUTER, ADDED, LWF = "router", "added", "lwf"  # the mode that tells the use of experts; methods of continual learning
MODES: dict[str, Mode] = {
    "full": Mode(learns="all"),
    "adapter": Mode(adapter=64),
    "router": Mode(),
    "router_1": Mode(experts=1),
    "router_2": Mode(experts=2),
    "router_1_most": Mode(experts=1, select="most"),
    "router_1_least": Mode(experts=1, select="least"),
    "prune_1_2": Mode(learns="all", prune=1 / 2),
    "prune_2_3": Mode(learns="all", prune=2 / 3),
    "prune_threshold": Mode(learns="all", threshold=0.05),
    "top_k_3": Mode(learns="all", top_k=3),
    "top_k_2": Mode(learns="all", top_k=2),
    "top_k_1": Mode(learns="all", top_k=1),
    "hybrid_a": Mode(experts=1, prune=2 / 3, top_k=2),
    "hybrid_b": Mode(experts=2, prune=2 / 3, top_k=3),
}


class Adapt(Settings):
    """The network with experts adapted to new data sets, each by every mode, and taught them one after another.

    tasks         to adapt to; none leaves it out
    modes         names of `MODES` in pipeline/strategies.py, the paper's Tab. 3, or of `own_modes`
    own_modes     name -> a mode of your own
    epochs        of each such job
    optimiser     adamw, sgd or lamb
    lrs           every learning rate to try; the best on validation is kept
    weight_decay  of what learns
    lam           λ of the penalty meanwhile; the data sets of before stay in the estimates
    added         experts of its own that each new data set brings in continual learning
    lwf           λ of Learning without Forgetting (Li and Hoiem 2016), its baseline; 0 leaves it out
    temperature   at which its outputs are compared with those of before
    """

    tasks: Names = []
    modes: Names = ["full", "adapter", "router", "router_1", "router_2", "prune_1_2", "prune_2_3", "hybrid_b"]
    own_modes: dict[str, Mode] = {}
    epochs: Positive = 10
    optimiser: Literal["adamw", "sgd", "lamb"] = "adamw"
    lrs: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1), AfterValidator(_once)] = [1e-3]
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    lam: Annotated[float, Field(ge=0)] = 0.0
    added: Annotated[int, Field(ge=0)] = 1
    lwf: Annotated[float, Field(ge=0)] = 1.0
    temperature: Annotated[float, Field(gt=0)] = 2.0

    def mode(self, name: str) -> Mode:
        """A mode by its name. KeyError for one that neither the paper nor the study has."""
        return (MODES | self.own_modes)[name]
