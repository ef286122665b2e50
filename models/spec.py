"""What a network is, as plain values: enough to build it again, nothing about where it runs.

A spec is JSON-able and hashable; it stands in every bundle as `spec.json` and goes into the key of every training job.
Importing this module costs nothing (no torch), so that configuration and data readers may use it.
"""

from dataclasses import dataclass, field

LAYOUTS = ("class", "flags", "mask", "field", "normals", "instances", "points", "boxes")
Setting = bool | float | str | tuple[str, ...]
IGNORE = 255  # the value of an unlabelled pixel in layouts "mask" and "instances"
UNLABELLED = -2  # the class of every point or box of an unlabelled image


@dataclass(frozen=True, kw_only=True)
class Column:
    """One label column of a data set: how it is stored and what its values mean.

    layout        stored as                                batch tensor (B images; null = unlabelled)
    "class"       int32 class index                        int64 [B], null -> -1
    "flags"       list of int8, one per class, 0/1/-1      int8 [B, C], -1 = unlabelled
    "mask"        PNG uint8 of class indices               uint8 [B, H, W], 255 = unlabelled
    "field"       PNG uint16; value * scale is in `unit`   float32 [B, H, W], 0 = unlabelled
    "normals"     PNG RGB uint8, 128 + 127 * component     float32 [B, 3, H, W], unit vectors, zero = unlabelled
    "instances"   PNG uint8 of instance ids, 0 = none      uint8 [B, H, W], 255 = unlabelled
    "points"      list of float32 (x, y, class) triples    float32 [B, P, 3], class -1 = padding, -2 = unlabelled image
    "boxes"       list of float32 (x0, y0, x1, y1, class)  float32 [B, P, 5], class as for points
    Coordinates are in pixels of the stored image; the centre of the top left pixel is (0.5, 0.5). A normal's components
    point right, up and out of the scene, to the camera, which it faces; stored, it is the picture usually shown.

    `shares`: what part of the labelled training images ("class"; "flags": of those labelled for it, with a yes) or
    pixels ("mask") each class has; empty where that is not known.
    """

    layout: str
    classes: tuple[str, ...] = ()
    scale: float = 1.0
    unit: str = ""
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout {self.layout!r}: use one of {', '.join(LAYOUTS)}")


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """A timm network cut at `locations` places, for images of `size` (height, width).

    `dynamic`: it takes images of any size; `size` is then the largest height and width, at which its cost is counted.
    """

    name: str
    locations: int
    size: tuple[int, int]
    pretrained: bool = False
    dynamic: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task: its kind (a key of `models.tasks.TASKS`), the column it learns from, its weight in the objective.

    `options` are the kind's own settings, as sorted (name, value) pairs; a kind refuses those it does not know.
    `head` names one of the kind's heads, "" its first. `size` (height, width) is that of its images where a dynamic
    backbone takes several.
    """

    name: str
    kind: str
    dataset: str
    column_name: str
    column: Column
    weight: float = 1.0
    head_width: int = 32
    head: str = ""
    options: tuple[tuple[str, float], ...] = ()
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a data set's routers may choose from: `top_k` of the numbered experts, in every layer that has experts.

    `experts` and `own` hold one row of numbers per layer; `own` are those that no other data set uses. Numbers are
    names: they stay when other experts go.
    """

    dataset: str
    top_k: int
    experts: tuple[tuple[int, ...], ...]
    own: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A network for several tasks: backbone, tasks, input normalisation, and how the tasks share (`strategy`).

    `groups[d][t]` is the branch of task t at location d; only strategy "branched" reads it. `settings` are a strategy's
    own, as sorted (name, value) pairs. `routes` are those of data sets that may not use all experts of strategy "moe".
    """

    strategy: str
    backbone: BackboneSpec
    tasks: tuple[TaskSpec, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    groups: tuple[tuple[int, ...], ...] = field(default=())
    settings: tuple[tuple[str, Setting], ...] = field(default=())
    routes: tuple[Route, ...] = field(default=())

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)
