"""What each stage took, where and when: beside the stages' own folders, since times are no results.

They are read for the report's provenance alone; a stage that DVC took from its cache keeps the record of its last run.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.artifacts import ARTIFACTS, read_json, write_json
from pipeline.hardware import hardware

FOLDER = ".records"


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One finished run of a stage: its wall time, the machine, and when it ended."""

    seconds: float
    machine: str
    ended: str


def record_stage(stage: str, seconds: float, base: Path | None = None) -> None:
    """Note that a stage has ended well."""
    folder = (base or ARTIFACTS) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_json(folder / f"{stage}.json", asdict(StageRecord(seconds=seconds, machine=hardware(), ended=now)))


def read_stage(stage: str, base: Path | None = None) -> StageRecord | None:
    """The record of a stage's last run on this machine; none where it did not run here."""
    path = (base or ARTIFACTS) / FOLDER / f"{stage}.json"
    return StageRecord(**read_json(path)) if path.exists() else None
