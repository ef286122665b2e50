"""The files and the page for clusters: sound by Ray's own check, of the lock's versions, giving no key away."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config import ROOT
from pipeline.machine import Machine
from pipeline.travelling import STAYS, STAYS_ANYWHERE, STAYS_BELOW, travelling

DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())
LOCKED = dict(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))

KUBERAY = YAML(typ="safe").load((ROOT / "tests/kuberay_fields.yaml").read_text())
TYPES = {"boolean": bool, "integer": int, "float": (int, float), "string": str, "object": dict}
PAGE = (ROOT / "docs/cluster.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def ray_job() -> dict[str, Any]:
    job, claim = YAML(typ="safe").load_all((DEPLOY / "rayjob.yaml").read_text())
    assert claim["kind"] == "PersistentVolumeClaim"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    return job


def check_fields(part: Mapping[str, Any], kind: str) -> None:
    """Hold a part of a RayJob against KubeRay's fields of that kind."""
    for name, value in part.items():
        wanted = KUBERAY[kind].get(name)
        assert wanted is not None, f"{kind} has no {name}"
        if isinstance(wanted, list):
            assert value in wanted, f"{kind}.{name}: {value}"
        elif wanted in TYPES:
            assert isinstance(value, TYPES[wanted]), f"{kind}.{name}: {value!r} is no {wanted}"
        else:
            for item in value if isinstance(value, list) else [value]:
                check_fields(item, wanted)


def test_the_ray_job_holds_what_kuberay_knows() -> None:
    job = ray_job()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check_fields(job["spec"], "RayJobSpec")
    cluster = job["spec"]["rayClusterSpec"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_every_pod_mounts_volumes_that_it_has() -> None:
    cluster = ray_job()["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert "hostNetwork" not in pod
        values = [value for value in group["rayStartParams"].values() if not isinstance(value, str)]
        assert not values, "KubeRay wants text"


def test_versions_are_the_lock_s() -> None:
    assert ray_job()["spec"]["rayClusterSpec"]["rayVersion"] == LOCKED["ray"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"uv==(\S+)", dockerfile) == [LOCKED["uv"]]
    assert re.findall(r"/uv/([\d.]+)/", (DEPLOY / "ray-cluster.yaml").read_text()) == [LOCKED["uv"]]
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    images = {tag for path in FILES for tag in re.findall(r"coppice:(\S+)", path.read_text())}
    assert images == {version[1]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("provider", ["aws", "local"])
def test_ray_up_takes_the_cluster_file(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    settings: dict[str, Any] = YAML(typ="safe").load((DEPLOY / "ray-cluster.yaml").read_text())
    if provider == "local":  # as its comment says
        settings["provider"] = {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
        del settings["available_node_types"], settings["head_node_type"]
    prepared = prepare_config(settings)
    validate_config(prepared)
    assert prepared["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"


def test_ray_starts_with_a_token_and_dashboards_listen_at_home() -> None:
    settings: Mapping[str, Any] = YAML(typ="safe").load((DEPLOY / "ray-cluster.yaml").read_text())
    starts = [
        line for key in ("head", "worker") for line in settings[f"{key}_start_ray_commands"] if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    script = (DEPLOY / "slurm.sh").read_text()
    assert "export RAY_AUTH_MODE=token" in script
    heads = re.findall(r"ray start --head.*?--dashboard-host=(\S+)", script + starts[0], re.DOTALL)
    assert heads == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize("checker", [["bash", "-n"], ["shellcheck"]], ids=["bash", "shellcheck"])
def test_the_slurm_script_is_sound(checker: list[str]) -> None:
    if shutil.which(checker[0]) is None:
        pytest.skip(f"no {checker[0]} here")
    done = subprocess.run([*checker, DEPLOY / "slurm.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_key_stands_in_a_file(path: Path) -> None:
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|AUTH_TOKEN=[0-9a-f]{16}", path.read_text())


def test_the_image_holds_nothing_that_travels_to_no_cluster() -> None:
    left_out = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {*STAYS, *STAYS_BELOW, *(f"**/{name}" for name in STAYS_ANYWHERE), "dvc.lock"} <= set(left_out)


def settings_named(text: str) -> Machine:
    """Map a text to the settings that it names as `key: value`."""
    return Machine.model_validate(YAML(typ="safe").load("\n".join(re.findall(r"`(\w+: [^`]+)`", text))))


def test_settings_that_the_files_and_the_page_name_are_those_of_machine_yaml() -> None:
    slurm = settings_named((DEPLOY / "slurm.sh").read_text())
    assert (slurm.address, slurm.gpu, slurm.workers, slurm.jobs) == ("auto", True, (1, 1), 0)
    cloud = settings_named((DEPLOY / "ray-cluster.yaml").read_text())
    nodes = YAML(typ="safe").load((DEPLOY / "ray-cluster.yaml").read_text())
    assert nodes["available_node_types"]["gpu"]["min_workers"] == 0
    assert (cloud.autoscaling, cloud.workers, cloud.jobs) == (True, (1, 1), nodes["max_workers"])
    shown = [Machine.model_validate(YAML(typ="safe").load(block)) for kind, block in BLOCKS if kind == "yaml"]
    assert [(machine.address, machine.jobs) for machine in shown] == [("auto", 0), ("auto", 0)]


def test_the_page_s_command_without_make_sends_what_make_submit_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    keys = (".env", ".ray-42-x/token", ".dvc/config.local", "mlflow.db", "mlflow.db-wal", "mlartifacts/1/m")
    for name in ("params.yaml", "dvc.yaml", "stages/plan.py", ".dvc/config", "cluster.yaml", "machine.yaml", *keys):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    shutil.copy(ROOT / ".gitignore", here)
    ray = tmp_path / "bin/ray"
    ray.parent.mkdir()
    ray.write_text('#!/bin/sh\nwhile [ "$1" != --working-dir ]; do shift; done; cp -R "$2" "$SENT"\n')
    ray.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ray.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SENT", str(tmp_path / "sent"))
    subprocess.run(["git", "init", "--quiet"], cwd=here, check=True)
    command = next(block for _, block in BLOCKS if "ray job submit" in block)
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=here, check=True)
    sent = {path.relative_to(tmp_path / "sent") for path in (tmp_path / "sent").rglob("*") if path.is_file()}
    assert sent == {*travelling(here), Path("machine.yaml")}
    assert (tmp_path / "sent/machine.yaml").read_text() == "cluster.yaml"


def test_what_the_page_says_by_hand_can_be_done_by_hand() -> None:
    commands = PAGE + "".join(path.read_text() for path in FILES)
    assert set(re.findall(r"get-auth-token --generate(.{12})", commands)) == {" > /dev/null"}, "it prints the token"
    copying = next(block for _, block in BLOCKS if "scp " in block)
    assert re.search(r"ssh \S+ mkdir -p -m 700 \.ray .*\nscp ", copying)
    server = re.search(r"mlflow server .* --host (\S+) --port (\d+)", PAGE)
    assert server
    assert f"tracking_uri: http://{server[1]}:{server[2]}\n" in PAGE
