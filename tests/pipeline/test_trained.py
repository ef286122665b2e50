"""Networks of finished jobs, looked at again."""

from dataclasses import replace

import torch

from models.accounting import count_flops
from models.sharing.moe import MoeModel
from pipeline.moe_jobs import moe_spec
from pipeline.trained import task_flops, without_heads
from tests.pipeline.expert_study import manifests, study


def test_a_task_costs_what_its_own_images_cost() -> None:
    spec = moe_spec(study(), manifests(), ["kind", "field"])
    sizes = ((32, 32), (32, 64))
    tasks = tuple(replace(task, size=size) for task, size in zip(spec.tasks, sizes, strict=True))
    spec = replace(spec, tasks=tasks, backbone=replace(spec.backbone, size=(32, 64), dynamic=True))
    network = MoeModel(spec)
    alone = {
        task.name: count_flops(network.only(task.name), torch.zeros(1, 3, *size))
        for task, size in zip(tasks, sizes, strict=True)
    }
    assert task_flops(network) == alone
    assert without_heads(network) == network.backbone_params()
