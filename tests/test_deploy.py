"""The files for clusters: sound by Ray's own check, of the lock's versions, and listening to nobody outside."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config import ROOT

DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())
LOCKED = dict(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))

# KubeRay's API, ray.io/v1, as of its release 1.5: what the parts of a RayJob may hold.
RAY_JOB = {
    *("entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "activeDeadlineSeconds"),
    *("rayClusterSpec", "runtimeEnvYAML", "submissionMode", "submitterPodTemplate", "submitterConfig", "metadata"),
    *("clusterSelector", "suspend", "jobId", "entrypointNumCpus", "entrypointNumGpus", "entrypointResources"),
}
RAY_CLUSTER = {
    *("rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs", "autoscalerOptions", "suspend", "managedBy"),
    *("enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headServiceAnnotations", "upgradeStrategy"),
}
HEAD = {"template", "rayStartParams", "serviceType", "headService", "enableIngress", "resources", "labels"}
WORKERS = {
    *("template", "rayStartParams", "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "suspend"),
    *("idleTimeoutSeconds", "scaleStrategy", "resources", "labels"),
}


def ray_job() -> dict[str, Any]:
    job, claim = YAML(typ="safe").load_all((DEPLOY / "rayjob.yaml").read_text())
    assert claim["kind"] == "PersistentVolumeClaim"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    return job


def test_the_ray_job_holds_what_kuberay_knows() -> None:
    job = ray_job()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= RAY_JOB
    assert set(cluster) <= RAY_CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKERS
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
