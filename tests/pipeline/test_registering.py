"""What is registered answers as the bundles do: packed here, and behind MLflow's own server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.io import encode_png

from models import bundle
from models.sharing import SHARING
from models.spec import ModelSpec
from pipeline.artifacts import read_manifests
from pipeline.config import ROOT
from pipeline.machine import Machine
from pipeline.network_runs import baseline_entry, network_entry, split_entries
from pipeline.registering import CODE, LIBRARIES, model_name, pack, registered
from pipeline.serving import Served, _load_pyfunc, decoded
from pipeline.storage import JobFolder
from tests.pipeline.cases import DECODING, make_job
from tests.pipeline.test_report import study_of
from tests.pipeline.test_report_taps import study_with_taps
from tests.test_rules import closure, imports, name

pytestmark = pytest.mark.filterwarnings(DECODING)
TASKS = ("scene", "depth", "segmentation", "keypoints")
IMPORTED_AS = {"pillow": "PIL"}


def stored(machine: Machine, key: str, spec: ModelSpec) -> None:
    """A network with random weights, always the same, as a finished job leaves it."""
    torch.manual_seed(0)
    network = SHARING[spec.strategy](spec)
    folder = Path(machine.storage) / f"draft {key}"
    bundle.save(network.eval(), folder)
    JobFolder(machine.storage, key).upload(folder, "bundle")


@pytest.fixture
def machine(prepared: Path, tmp_path: Path) -> Machine:
    """A storage with a shared network, one for each task alone, and TAPS of one base for each task."""
    machine = Machine(storage=str(tmp_path))
    spec = make_job(read_manifests(prepared), TASKS).model
    stored(machine, "shared", spec)
    for task in spec.tasks:
        stored(machine, f"single {task.name}", replace(spec, tasks=(task,), groups=((0,),) * 4))
        stored(machine, f"taps {task.name}", replace(spec, tasks=(task,), strategy="taps", groups=()))
    return machine


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def request_of(images: Tensor) -> list[str]:
    return [b64encode(encode_png(image).numpy().tobytes()).decode() for image in images]


def assert_answers(answers: Sequence[Mapping[str, Any]], images: Tensor, bundles: Sequence[Path]) -> None:
    """As the bundles themselves predict."""
    expected: dict[str, Tensor] = {}
    for path in bundles:
        expected |= bundle.load(path)(images)
    assert [answer.keys() for answer in answers] == [expected.keys()] * len(images)
    for row, answer in enumerate(answers):
        for task in ("depth", "segmentation", "keypoints"):
            torch.testing.assert_close(
                torch.tensor(answer[task]["map"], dtype=torch.float32), expected[task][row].float(), atol=1e-5, rtol=0
            )
        assert answer["scene"]["probability"] == pytest.approx(float(expected["scene"][row].max()), abs=1e-5)


@pytest.mark.parametrize("kind", ["shared", "single", "taps"])
def test_a_packed_network_predicts_as_its_bundles(machine: Machine, images: Tensor, tmp_path: Path, kind: str) -> None:
    jobs = ["shared"] if kind == "shared" else [f"{kind} {task}" for task in TASKS]
    pack(jobs, machine, tmp_path / "packed")
    answers = _load_pyfunc(str(tmp_path / "packed/data")).predict({"image": request_of(images)})
    assert_answers(answers, images, [tmp_path / "jobs" / job / "bundle" for job in jobs])
    assert len(list((tmp_path / "packed/data").iterdir())) == (len(jobs) if kind == "single" else 1)


def test_batches_leave_answers_as_they_are(machine: Machine, tmp_path: Path) -> None:
    images = torch.randint(0, 256, (19, 3, 32, 32), dtype=torch.uint8)
    pack(["shared"], machine, tmp_path / "packed")
    served = _load_pyfunc(str(tmp_path / "packed/data"))
    together = served.predict({"image": request_of(images)})
    last = served.predict({"image": request_of(images[-1:])})
    assert together[-1]["scene"]["probability"] == pytest.approx(last[0]["scene"]["probability"], abs=1e-5)
    assert len(together) == 19


@pytest.mark.parametrize("text", ["no base64!", b64encode(b"no image").decode(), ""])
def test_what_is_no_image_is_refused_by_row(text: str) -> None:
    with pytest.raises(ValueError, match="row 3, column image: not an image file as base64"):
        decoded(text, 3)
    assert Served([]).predict({"image": []}) == []


def test_what_is_shipped_is_what_serving_imports() -> None:
    reached = closure(ROOT / "pipeline/serving.py")
    assert all(any(name(path) == part or name(path).startswith(f"{part}/") for part in CODE) for path in reached)
    used = {module.split(".")[0] for path in reached for module in imports(path)}
    used -= {*sys.stdlib_module_names, "models", "pipeline"}
    assert used | {"mlflow"} == {IMPORTED_AS.get(library, library.replace("-", "_")) for library in LIBRARIES}


def test_the_best_on_validation_the_smallest_and_the_baseline_are_registered() -> None:
    study = study_of(3, 2)
    found = registered(study)
    value = {network.name: sum(study.deltas(network, "val")) for network in study.networks}
    best = max(value, key=lambda name: value[name])
    assert found["champion"].label.split(" = ")[0] in {
        one.label for one in study.networks if value[one.name] == value[best]
    }
    assert found["smallest"].metrics["params_m"] == min(one.params for one in study.networks) / 1e6
    assert found["baseline"].jobs == tuple(row.job for row in study.baselines.values())
    assert found["baseline"].metrics == {"final/delta_mtl": 0.0, "params_m": 0.003, "gmacs": 6e-6}
    for entry in (found["champion"], found["smallest"]):
        (network, *_) = [one for one in study.networks if one.keys[:1] == entry.jobs]
        assert entry.metrics["final/delta_mtl"] == study.deltas(network)[0]


def test_networks_of_several_jobs_have_a_run_of_their_own(tmp_path: Path) -> None:
    study = study_with_taps(tmp_path, 4)
    study = replace(
        study,
        config=study.config.model_copy(update={"taps": study.config.taps.model_copy(update={"base": study.tasks[0]})}),
    )
    own = study.baselines[study.tasks[0]].job
    taps = [network for network in study.networks if network.strategy == "taps"]
    assert taps
    for network in taps:
        assert network_entry(study, network).jobs == (*network.keys, own)
    assert {entry.strategy for entry in split_entries(study)} == {"taps", "single"}
    assert baseline_entry(study) in split_entries(study)


def test_a_registered_models_name_has_no_slash() -> None:
    assert model_name("sharing/scenes: small") == "sharing-scenes- small"


# In a process of its own: MLflow leaves warnings and connections behind.
LOG = """
import json, sys
from functools import partial
from pathlib import Path
from pipeline.machine import Machine
from pipeline.registering import LIBRARIES, pack
from pipeline.spool import Where
from pipeline.tracker import Tracker
from importlib.metadata import version
root, tasks = Path(sys.argv[1]), json.loads(sys.argv[2])
about = {
    "name": "tiny", "digest": "0", "description": "d", "metrics": {"final/delta_mtl": 1.5},
    "requirements": [f"{one}=={version(one).partition('+')[0]}" for one in LIBRARIES],
    "inputs": [{"type": "string", "name": "image", "required": True}],
    "outputs": [{"type": "any", "name": task, "required": True} for task in tasks],
    "example": {"image": json.loads(sys.argv[3])},
}
where = Where(uri=f"sqlite:///{root / 'mlflow.db'}", spool=root / "spool", experiment="tiny")
for alias in ("champion", "smallest"):  # the same network under two names is one version
    with Tracker(where) as tracker:
        run = tracker.run("r", name="r", tags={}, params={})
        run.model({**about, "alias": alias}, partial(pack, ["shared"], Machine(storage=str(root))))
        run.finish({})
"""


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.usefixtures("machine")
def test_mlflow_serves_the_champion(images: Tensor, tmp_path: Path) -> None:
    arguments = [str(tmp_path), json.dumps(TASKS), json.dumps(request_of(images))]
    logged = subprocess.run(
        [sys.executable, "-c", LOG, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (logged.stderr, logged.returncode) == ("", 0)
    (model,) = (tmp_path / "mlartifacts").rglob("MLmodel")
    assert "loader_module: pipeline.serving" in model.read_text()
    assert not [file for file in model.parent.rglob("*") if file.suffix in (".pkl", ".pth", ".pt")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/tiny@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    with (tmp_path / "served.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        answers = ask(
            server, port, {"dataframe_split": {"columns": ["image"], "data": [[t] for t in request_of(images)]}}
        )
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    assert_answers(answers, images, [tmp_path / "jobs/shared/bundle"])


def ask(server: subprocess.Popen[bytes], port: int, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Wait until a model's server is up, and send it a request."""
    base, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 180
    while True:
        assert server.poll() is None, "the server ended; see served.log"
        assert time.monotonic() < deadline
        try:
            with urllib.request.urlopen(f"{base}/ping", timeout=2):
                break
        except OSError:
            time.sleep(0.5)
    request = urllib.request.Request(
        f"{base}/invocations", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]
