"""A branched network against one network a task, in inference.    python -m benchmarks.branched    (about 2 minutes)

Five classification tasks leave one another at different depths. The single-task networks are those of the same tree,
cut out; both sides give the same outputs. The claim: the ratio of their times is that of their FLOPs within 10 %.
"""

import torch
from torch import Tensor

from benchmarks.timing import in_turn
from models.accounting import count_flops
from models.sharing.branched import BranchedModel
from models.spec import BackboneSpec, Column, ModelSpec, TaskSpec

NAMES = ("one", "two", "three", "four", "five")
TREE = ((0, 0, 0, 0, 0), (0, 0, 0, 1, 1), (0, 0, 1, 2, 2), (0, 1, 2, 3, 4))
CASES = (
    ("resnet50", (224, 224), 1),
    ("resnet50", (224, 224), 8),
    ("resnet18", (64, 64), 16),
    ("vit_small_patch16_224", (224, 224), 2),
    ("convnext_tiny", (224, 224), 2),
)
ROUNDS = 5


def main() -> None:
    torch.set_num_threads(1)
    branches = "-".join(str(max(row) + 1) for row in TREE)
    print(f"branched: 1 thread, eval, {len(NAMES)} tasks, {branches} branches; fastest of {ROUNDS} rounds")
    for backbone, size, batch in CASES:
        _compare(backbone, size, batch)


@torch.inference_mode()
def _compare(backbone: str, size: tuple[int, int], batch: int) -> None:
    tree = BranchedModel(_spec(backbone, size)).eval()
    single = {name: tree.only(name) for name in NAMES}
    images = torch.rand(batch, 3, *size)

    def one_by_one() -> dict[str, Tensor]:
        return {name: single[name](images)[name] for name in NAMES}

    whole = tree(images)
    assert all(torch.equal(value, whole[name]) for name, value in one_by_one().items())
    times = in_turn({"tree": lambda: tree(images), "single": one_by_one}, ROUNDS)
    flops = count_flops(tree, images) / sum(count_flops(network, images) for network in single.values())
    spent = min(times["tree"].cpu) / min(times["single"].cpu)
    print(
        f"{backbone} {size[0]} px, batch {batch}: tree {times['tree'].text}; {len(NAMES)} networks"
        f" {times['single'].text}; CPU ratio {spent:.3f}, FLOP ratio {flops:.3f}, time over FLOPs {spent / flops:.2f}"
    )


def _spec(backbone: str, size: tuple[int, int]) -> ModelSpec:
    classes = Column(layout="class", classes=tuple("abcdefghij"))
    tasks = tuple(
        TaskSpec(name=name, kind="classification", dataset="photos", column_name=name, column=classes) for name in NAMES
    )
    return ModelSpec(
        strategy="branched",
        backbone=BackboneSpec(name=backbone, locations=len(TREE), size=size),
        tasks=tasks,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        groups=TREE,
    )


if __name__ == "__main__":
    main()
