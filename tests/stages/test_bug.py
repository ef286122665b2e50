"""`python -m stages.bug`: what goes into the file, and what must not."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from stages import bug


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The file's contents by name, of a folder with settings, logs and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    (tmp_path / "params.yaml").write_text("seed: 3\nkeypoints: 2\n")
    (tmp_path / "machine.yaml").write_text(
        "tracking_uri: http://me:hunter22@mlflow.lab/?token=abcdef123\n"
        "roots: {faces: /data/faces}\napi_token: 987654321\n"
    )
    (tmp_path / "data.arrow").write_text("data")
    logs = tmp_path / "runs/logs"
    logs.mkdir(parents=True)
    for number in range(bug.LOGS + 1):
        (logs / f"taps-{number}.log").write_text(f"log {number} says wJalrXUtnFEMI\n")
    bug.main()
    (path,) = tmp_path.glob("coppice-bug-*.zip")
    with ZipFile(path) as bundle:
        return {name: bundle.read(name).decode() for name in bundle.namelist()}


def test_settings_versions_and_the_last_logs_are_in_it(texts: dict[str, str]) -> None:
    assert {"about.txt", "params.yaml", "machine.yaml"} < set(texts)
    assert sum(name.endswith(".log") for name in texts) == bug.LOGS
    assert "data.arrow" not in texts
    assert all(part in texts["about.txt"] for part in ("python", "torch", "git"))
    assert "faces: /data/faces" in texts["machine.yaml"]
    assert texts["params.yaml"] == "seed: 3\nkeypoints: 2\n"


def test_no_secret_is_in_it(texts: dict[str, str]) -> None:
    everything = "\n".join(texts.values())
    assert not [secret for secret in ("hunter22", "abcdef123", "987654321", "wJalrXUtnFEMI") if secret in everything]
