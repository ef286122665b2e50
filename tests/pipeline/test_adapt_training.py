"""A network with experts trained on two data sets, then adapted to a third: what stays, what a run tells of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.accounting import count_params
from pipeline.adapt_jobs import base_of, first_jobs, later_jobs
from pipeline.adapt_results import run_row
from pipeline.artifacts import DatasetManifest
from pipeline.expert_usage import usage_of
from pipeline.jobs import TrainJob
from pipeline.loop import conclude, train
from pipeline.machine import Machine
from pipeline.moe_jobs import moe_trials
from pipeline.trained import measure_on_test, trained_experts, without_heads
from pipeline.training_state import Site
from tests.pipeline.cases import DECODING, site
from tests.pipeline.expert_study import SINGLE, prepare_all, study

pytestmark = pytest.mark.filterwarnings(DECODING)
FEW: dict[str, Any] = {"experts": 1, "prune": 0.5, "top_k": 1}
MODES_TRAINED = ["router_1", "narrow", "few"]


class Trained:
    """A network with experts for two data sets, trained, and then adapted to a third."""

    def __init__(self, folder: Path) -> None:
        self.prepared = folder / "prepared"
        own = {"few": FEW, "narrow": {"adapter": 4}}
        self.config = study(
            moe={"baselines": [], "tasks": ["kind", "field"]}, adapt={"own_modes": own, "modes": MODES_TRAINED}
        )
        self.manifests: Mapping[str, DatasetManifest] = prepare_all(self.prepared)
        self.machine, self.site = Machine(storage=str(folder)), site(self.prepared, folder)
        (self.joint,) = [trial.job for trial in moe_trials(self.config, self.manifests, SINGLE)]
        self.results: dict[str, dict[str, Any]] = {"joint": run(self.joint, self.site)}
        self.base = base_of(self.config, self.manifests, self.joint.key)
        self.items = {item.mode: item for item in first_jobs(self.config, self.manifests, self.base)}
        self.train("router", "router_1", "narrow")
        router = self.items["router"].job
        picks = {
            "fresh": [
                layer[0]
                for layer in usage_of(
                    router, trained_experts(router.key, self.machine), self.machine, self.prepared
                ).picks
            ]
        }
        self.items |= {
            item.mode: item for item in later_jobs(self.config, self.manifests, self.base, {"fresh": router.key}, picks)
        }
        self.picks = picks["fresh"]
        self.train("few")

    def train(self, *modes: str) -> None:
        self.results |= {mode: run(self.items[mode].job, self.site) for mode in modes}

    def weights(self, job: TrainJob) -> dict[str, Tensor]:
        return load_file(f"{self.site.folder(job).path}/bundle/weights.safetensors")

    def row(self, mode: str) -> dict[str, Any]:
        item = self.items[mode]
        picks = [
            layer[0]
            for layer in usage_of(
                item.job, trained_experts(item.job.key, self.machine), self.machine, self.prepared
            ).picks
        ]
        return run_row(item, self.results[mode], trained_experts(item.job.key, self.machine), picks)


def run(job: TrainJob, where: Site) -> dict[str, Any]:
    list(train(job, where))
    return conclude(job, where)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.set_num_threads(1)
    return Trained(tmp_path_factory.mktemp("trained"))


def is_own(name: str, own: Sequence[Sequence[int]], layers: Sequence[str]) -> bool:
    """Whether a tensor is the new data set's: its router, estimate, experts, adapter, head."""
    if name.startswith("heads.") or any(part in name for part in (".routers.", ".estimates.", ".adapter.")):
        return True
    return any(name.startswith(f"{path}.experts.{n}.") for path, row in zip(layers, own, strict=True) for n in row)


@pytest.mark.parametrize("mode", ["router", *MODES_TRAINED])
def test_what_is_not_the_new_data_set_s_own_stays_to_the_bit(trained: Trained, mode: str) -> None:
    before, after = trained.weights(trained.joint), trained.weights(trained.items[mode].job)
    (route,) = trained.items[mode].job.model.routes
    network = trained_experts(trained.items[mode].job.key, trained.machine)
    paths = {module: path for path, module in network.named_modules()}
    layers = [paths[layer] for layer in network.layers.values()]
    frozen = [name for name in after if not is_own(name, route.own, layers)]
    assert len(frozen) > 50
    for name in frozen:
        assert after[name].numpy().tobytes() == before[name].numpy().tobytes(), name
    learned = [name for name in after if is_own(name, route.own, layers) and name in before and "experts" in name]
    assert bool(learned) == any(route.own)
    assert not any(torch.equal(after[name], before[name]) for name in learned if name.endswith("fc2.weight"))
    assert {name for name in after if ".routers." in name} == {f"{path}.routers.on_wide.weight" for path in layers}


def test_the_later_mode_goes_on_from_the_router_with_the_experts_that_it_uses_most(trained: Trained) -> None:
    (route,) = trained.items["few"].job.model.routes
    for kept, row in zip(route.experts, trained.picks, strict=True):
        assert set(kept) == set(sorted(range(4), key=lambda number: -row[number])[:2])
    assert trained.items["few"].job.start == (("network", trained.items["router"].job.key),)


def test_a_run_tells_what_it_trained_and_what_is_left(trained: Trained) -> None:
    shared = trained_experts(trained.joint.key, trained.machine)
    assert without_heads(shared) == shared.backbone_params()
    for mode in ("router", *MODES_TRAINED):
        row, network = trained.row(mode), trained_experts(trained.items[mode].job.key, trained.machine)
        layers = list(network.layers.values())
        routers = sum(layer.router("wide").weight.numel() for layer in layers)
        expert = [count_params(layer.expert(int(layer.names[0]))) for layer in layers]
        adapters = sum(count_params(layer.adapter) for layer in layers)
        assert (adapters > 0) == (mode == "narrow")
        assert row["trained_params"] == routers + adapters + (sum(expert) if mode in ("router_1", "few") else 0)
        left = 2 if mode == "few" else 4
        assert row["experts"] == [left] * 3
        whole = shared.backbone_params() - 2 * 4 * sum(
            layer.expert(0).fc1.weight.shape[1] for layer in shared.layers.values()
        )
        assert row["model_params"] == whole + routers + adapters - (4 - left) * sum(expert)
        assert row["model_params"] + row["head_params"] == trained.results[mode]["params"]
        assert (row["top_k"], row["test"]) == (1 if mode == "few" else 2, trained.results[mode]["test"]["fresh"])
        for picks, kept in zip(row["picks"], network.routes["wide"].experts, strict=True):
            assert len(picks) == 4
            assert sum(picks) == pytest.approx(1)
            assert all(share == 0 for number, share in enumerate(picks) if number not in kept)
    assert trained.row("few")["flops"] < trained.row("router")["flops"]


def test_a_network_measures_later_what_its_job_measured(trained: Trained) -> None:
    network = trained_experts(trained.joint.key, trained.machine)
    found = measure_on_test(network, trained.config, trained.manifests, trained.machine, trained.prepared)
    assert found == trained.results["joint"]["test"]


def test_jobs_are_the_same_whoever_asks(trained: Trained) -> None:
    again = base_of(trained.config, trained.manifests, trained.joint.key)
    assert again == trained.base
    for item in first_jobs(trained.config, trained.manifests, again):
        assert item == trained.items[item.mode]
        assert replace(item.job, name="other").key == item.job.key
