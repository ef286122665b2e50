"""params.yaml -> a frozen, typed configuration.

Nothing heavy is imported here: names of task kinds and readers are the names of their files.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipeline.settings_file import LARGEST, Fraction, Positive, Settings, nearest, read, validate
from pipeline.strategies import ADDED, LWF, MODES, Adapt, Branched, Moe, Taps, Trees

ROOT = Path(__file__).resolve().parent.parent
HELPERS = ("base", "pictures", "summed", "files")  # what the kinds and the readers share
TASK_KINDS = sorted(p.stem for p in (ROOT / "models/tasks").glob("[a-z]*.py") if p.stem not in HELPERS)
READERS = sorted(p.stem for p in (ROOT / "pipeline/datasets").glob("[a-z]*.py") if p.stem not in HELPERS)
OWN_READER = re.compile(r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$")  # module:function, see datasets/_custom.py


class Dataset(Settings):
    """Where a data set lies, how it is stored and drawn.

    reader           a file of pipeline/datasets, or a function of your own as my.module:function
    root             its folder, or its table; relative to params.yaml. machine.yaml's roots go before it
    images           how many to take, drawn with the seed; by default all. `scenes` makes as many
    size             height and width as stored and trained on
    val              the fraction drawn for validation, where there is no official split
    test             the fraction drawn for the test, likewise
    min_class_count  classes with fewer training images become unlabelled
    weight           its chance of being drawn, beside the other data sets'
    batch            images of a step that draws it; by default train.batch
    """

    reader: Annotated[str, Field(json_schema_extra={"anyOf": [{"enum": [*READERS]}, {"pattern": OWN_READER.pattern}]})]
    root: str | None = None
    images: Positive | None = None
    size: tuple[Positive, Positive]
    val: Fraction = 0.15
    test: Fraction = 0.15
    min_class_count: Annotated[int, Field(ge=0)] = 0
    weight: Annotated[float, Field(gt=0)] = 1.0
    batch: Positive | None = None

    @field_validator("size", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Prepare(Settings):
    """How data sets are stored.

    on_bad   an image or label that can't be read: fail = stop and name it; skip = leave it out and list it
    store    jpeg = compressed; raw = more disk, read several times as fast where a set doesn't fit in memory
    quality  of JPEG
    """

    on_bad: Literal["fail", "skip"] = "fail"
    store: Literal["jpeg", "raw"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 95


class Task(Settings):
    """What to learn, from which labels.

    kind        a file of models/tasks
    dataset     the data set that it lives on
    column      the data set's column of labels; by default the task's own name
    weight      of its loss in the objective
    head        of dense kinds: fpn (the default), psp, upernet or deeplab; others have one
    head_width  channels of the head
    options     the kind's own settings
    """

    kind: Annotated[str, Field(json_schema_extra={"enum": [*TASK_KINDS]})]
    dataset: str
    column: str | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    head: str = ""
    head_width: Positive = 32
    options: dict[str, float] = {}


class Backbone(Settings):
    """The network whose layers are shared.

    name        any timm network that models/backbone.py cuts; _dilated at the end of a ResNet's keeps stride 8
    pretrained  true = timm's weights, from the local cache or the network
    locations   places where a tree may branch
    """

    name: str
    pretrained: bool = False
    locations: Annotated[int, Field(ge=1, le=16)] = 4


class Augment(Settings):
    """Random changes of training images, the same for all their labels.

    flip  the probability of being mirrored
    crop  the least side of a crop as a fraction; 1 = none
    """

    flip: Fraction = 0.5
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0


class Train(Settings):
    """How every network is trained, single-task and shared ones alike (paper Sec. 3.1: the same conditions).

    epochs         passes over the training images
    batch          images in a step
    optimiser      adamw, sgd or lamb
    lr             the highest learning rate
    weight_decay   of weights; biases and normalisation have none
    momentum       of sgd
    nesterov       whether sgd's momentum is Nesterov's
    schedule       how the learning rate falls
    milestones     parts of the training after which schedule step divides the learning rate by ten
    warmup_epochs  in which the learning rate rises to lr
    clip           the largest norm of the gradient; 0 = off
    ema            decay of averaged weights, which are then measured and kept; 0 = off
    precision      auto = bf16 on a GPU, fp32 on a CPU
    norm_images    batch statistics are those of groups of so many images; null = of a step's whole batch
    select         the epoch that is kept: the best on validation, or the last
    augment        random changes of training images
    """

    epochs: Positive = 10
    batch: Positive = 32
    optimiser: Literal["adamw", "sgd", "lamb"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    momentum: Fraction = 0.9
    nesterov: bool = True
    schedule: Literal["cosine", "step", "poly", "triangular", "constant"] = "cosine"
    milestones: list[Fraction] = [0.5, 0.75]
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(ge=0)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    norm_images: Positive | None = None
    select: Literal["best", "last"] = "best"
    augment: Augment = Augment()


class Affinity(Settings):
    """How alike tasks see the same held-out images (paper Sec. 3.1).

    images        held-out probe images, drawn evenly from the data sets
    bootstrap     resamples of the images for the interval; 0 = none
    permutations  shuffles of the images for the null; 0 = none
    pool          average features over positions before images are compared
    centre        subtract the mean image's features first
    """

    images: Positive = 500
    bootstrap: Annotated[int, Field(ge=0)] = 50
    permutations: Annotated[int, Field(ge=0)] = 20
    pool: bool = False
    centre: bool = False


class Report(Settings):
    """What the page shows.

    samples  images shown with their predictions
    """

    samples: Positive = 6


class Config(Settings):
    """Every number that a person may turn.

    Sections have no defaults, since DVC wants to see those that a stage depends on; most keys inside them have.

    experiment  the name of the MLflow experiment
    seed        of the data, the first weights, the order of the batches
    datasets    name -> where it lies, how it is stored and drawn
    prepare     how data sets are stored
    tasks       name -> what to learn, from which labels
    backbone    the network whose layers are shared
    train       how every network is trained, single-task and shared ones alike
    affinity    how alike tasks see the same held-out images
    trees       the budgets, and how trees are searched
    branched    how the chosen trees are trained
    taps        adaptive sharing: a base, and per task the layers that it makes its own
    moe         one network with experts for all data sets
    adapt       that network adapted to new data sets
    report      what the page shows
    """

    experiment: str
    seed: Annotated[int, Field(ge=0, le=LARGEST)]
    datasets: Annotated[dict[str, Dataset], Field(min_length=1)]
    prepare: Prepare
    tasks: Annotated[dict[str, Task], Field(min_length=1)]
    backbone: Backbone
    train: Train
    affinity: Affinity
    trees: Trees
    branched: Branched
    taps: Taps
    moe: Moe
    adapt: Adapt
    report: Report


def load(path: str | Path = "params.yaml") -> Config:
    """Read and check a whole params.yaml; ValueError lists every error with its line and key path."""
    raw = read(Path(path))
    return validate(Config, raw, Path(path), list(_wrong_names(raw)))


def _wrong_names(raw: Any) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Names that must be found elsewhere: readers, kinds, data sets. Malformed parts are left to the typed check."""
    datasets, tasks = _section(raw, "datasets"), _section(raw, "tasks")
    for name, item in datasets.items():
        reader = item.get("reader") if isinstance(item, Mapping) else None
        if isinstance(reader, str) and ":" in reader and not OWN_READER.fullmatch(reader):
            yield ("datasets", name, "reader"), f"no reader {reader!r}. Write your own as my.module:function."
        elif isinstance(reader, str) and ":" not in reader and reader not in READERS:
            yield ("datasets", name, "reader"), f"no reader {reader!r}. {nearest(reader, READERS)}"
    for name, item in tasks.items():
        if not isinstance(item, Mapping):
            continue
        if isinstance(item.get("kind"), str) and item["kind"] not in TASK_KINDS:
            yield ("tasks", name, "kind"), f"no task kind {item['kind']!r}. {nearest(item['kind'], TASK_KINDS)}"
        if isinstance(item.get("dataset"), str) and item["dataset"] not in datasets:
            known = [str(key) for key in datasets]
            yield ("tasks", name, "dataset"), f"no data set {item['dataset']!r}. {nearest(item['dataset'], known)}"
    yield from _wrong_tasks(raw, [str(key) for key in tasks])


def _wrong_tasks(raw: Any, known: list[str]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Names of tasks and modes in the sections of the strategies."""
    bases = {("taps", "base"): ["shared", "pretrained", *known], ("moe", "pretrained_on"): known}
    for (section, key), allowed in bases.items():
        name = _section(raw, section).get(key)
        if isinstance(name, str) and name not in allowed:
            yield (section, key), f"no base {name!r}. {nearest(name, allowed)}"
    own_modes = [str(name) for name in _section(_section(raw, "adapt"), "own_modes")]
    for name in own_modes:
        if name in (*MODES, ADDED, LWF):
            yield ("adapt", "own_modes", name), f"there is a mode {name!r} already. Give yours another name."
    modes = [*MODES, *own_modes]
    lists = [(section, "tasks", "task", known) for section in ("taps", "moe", "adapt")]
    for section, key, what, allowed in [*lists, ("adapt", "modes", "mode", modes)]:
        asked = _section(raw, section).get(key)
        for place, name in enumerate(asked if isinstance(asked, list) else []):
            if isinstance(name, str) and name not in allowed:
                yield (section, key, place), f"no {what} {name!r}. {nearest(name, allowed)}"


def _section(raw: Any, key: str) -> Mapping[str, Any]:
    section = raw.get(key) if isinstance(raw, Mapping) else None
    return section if isinstance(section, Mapping) else {}
