"""Probe images -> RDMs -> task affinities.    python -m stages.affinity    (seconds)

Reads the single-task bundles. Leaves artifacts/affinity/rdms.parquet (the strict upper triangles), affinity.parquet
(with bootstrap interval and permutation null) and affinity.json, the mean affinity of the pairs at each location.
"""

import torch

from models.bundle import load_network
from models.rsa import affinity, bootstrap_affinity, interval, permutation_null
from pipeline.artifacts import AFFINITY, ARTIFACTS, RDMS, read_manifests, shards, write_json, write_table, writing
from pipeline.config import Affinity
from pipeline.jobs import task_specs
from pipeline.loading import Split
from pipeline.probe import fewer_images, probe_images, task_rdms
from pipeline.result_lines import affinity_lines
from stages.session import session, start


def main() -> None:
    with session("affinity") as at:
        settings, manifests = at.config.affinity, read_manifests()
        tasks = task_specs(at.config, manifests)
        splits = [
            Split(dataset=name, paths=shards(name, "val"), size=manifests[name].size, columns={})
            for name in dict.fromkeys(task.dataset for task in tasks)
        ]
        images = probe_images(splits, settings.images)
        if len(images) < settings.images:
            at.say(fewer_images(len(images), settings))
        device = torch.device("cuda" if torch.cuda.is_available() and at.machine.gpu is not False else "cpu")
        names = [task.name for task in tasks]
        with writing("affinity") as folder:
            rdms = torch.empty(len(names), at.config.backbone.locations, len(images), len(images))
            for done, (name, rdms_DKK) in enumerate(zip(names, rdms, strict=True)):
                at.progress(f"{done} of {len(names)} networks have seen {len(images)} images", in_pipes=False)
                network = load_network(ARTIFACTS / "pretrain" / name)
                rdms_DKK.copy_(task_rdms(network, name, images, settings, device, folder))
            value, low, high, null = _compared(rdms, settings, at.config.seed)
            write_table(folder / "affinity.parquet", _rows(names, value, low, high, null), AFFINITY)
            write_table(folder / "rdms.parquet", _triangles(names, rdms), RDMS)
            off = ~torch.eye(len(names), dtype=torch.bool)
            means = {f"location_{d + 1}": float(value[d][off].mean()) for d in range(len(value)) if len(names) > 1}
            write_json(folder / "affinity.json", {"images": len(images), "mean": means})
        at.run.log({f"affinity/{name}": mean for name, mean in means.items()}, 0)
        at.run.artifact(ARTIFACTS / "affinity" / "affinity.parquet")
        at.result(affinity_lines(names, value.tolist()))


def _compared(rdms: torch.Tensor, settings: Affinity, seed: int) -> tuple[torch.Tensor, ...]:
    """Affinities, the two ends of their bootstrap interval, and the upper end of the permutation null."""
    value = affinity(rdms)
    low, high, null = value, value, value.new_zeros(value.shape)
    if settings.bootstrap:
        low, high = interval(bootstrap_affinity(rdms, resamples=settings.bootstrap, seed=seed))
    if settings.permutations:
        _, null = interval(permutation_null(rdms, permutations=settings.permutations, seed=seed))
    return value, low, high, null


def _rows(names: list[str], *maps: torch.Tensor) -> list[dict]:
    keys = ("value", "ci_low", "ci_high", "null_high")
    return [
        {"location": d + 1, "task_a": a, "task_b": b}
        | {key: float(m[d, i, j]) for key, m in zip(keys, maps, strict=True)}
        for d in range(len(maps[0]))
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]


def _triangles(names: list[str], rdms: torch.Tensor) -> list[dict]:
    rows, columns = torch.triu_indices(rdms.shape[-1], rdms.shape[-1], offset=1)
    return [
        {"task": name, "location": d + 1, "triangle": rdms[t, d, rows, columns].numpy()}
        for t, name in enumerate(names)
        for d in range(rdms.shape[1])
    ]


if __name__ == "__main__":
    start(main, logged=True)
