"""Specs of the networks that are measured: classifiers of ten classes for some tasks on one data set's images."""

from collections.abc import Sequence

from models.spec import BackboneSpec, Column, ModelSpec, Setting, TaskSpec

LOCATIONS = 4
Groups = tuple[tuple[int, ...], ...]


def classifiers(
    strategy: str,
    backbone: str,
    size: int,
    tasks: Sequence[str],
    *,
    groups: Groups = (),
    settings: tuple[tuple[str, Setting], ...] = (),
) -> ModelSpec:
    """Map a strategy, a backbone at four locations, the side of its images and names of tasks to a network's spec."""
    classes = Column(layout="class", classes=tuple("abcdefghij"))
    return ModelSpec(
        strategy=strategy,
        backbone=BackboneSpec(name=backbone, locations=LOCATIONS, size=(size, size)),
        tasks=tuple(
            TaskSpec(name=name, kind="classification", dataset="photos", column_name=name, column=classes)
            for name in tasks
        ),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        groups=groups,
        settings=settings,
    )
