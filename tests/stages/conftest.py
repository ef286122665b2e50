"""Commands under test leave their logs in the test's own folder."""

from pathlib import Path

import pytest

from pipeline import run_log


@pytest.fixture(autouse=True)
def _logs_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "log_folder", lambda: tmp_path / "runs/logs")
