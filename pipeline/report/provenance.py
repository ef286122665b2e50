"""Where a report comes from: program, settings, results that DVC knows, machine, time; and how to make it again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.artifacts import ARTIFACTS, digest
from pipeline.config import ROOT, Config, load
from pipeline.hardware import hardware
from pipeline.presets import PRESETS, preset_path
from pipeline.report.network import BRANCHED
from pipeline.report.study import Study, distinct
from pipeline.stage_records import read_stage

DEFAULT = "scenes"  # the preset that params.yaml is where nobody changed it
REPORT = "report"
STAGES = ("sources", "prepare", "pretrain", "affinity", "trees", BRANCHED, "taps", "moe", "adapt")
SETTINGS = "params.yaml"  # the study's settings, beside the page


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting that is not the preset's; a value is empty where the key is missing."""

    key: str
    preset: str
    ours: str


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One stage: the wall time and the machine of its last run, seconds of its jobs, DVC's digest of its results."""

    name: str
    seconds: float | None
    job_seconds: float | None
    jobs: int
    machine: str
    ended: str
    digest: str

    @property
    def known(self) -> bool:
        """Whether there is anything to say of it."""
        return self.seconds is not None or self.jobs > 0 or bool(self.digest)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the box of the page shows; `lock` is the digest of what dvc.lock says of all stages before this one."""

    revision: str
    preset: str
    differences: Sequence[Difference]
    lock: str
    stages: Sequence[StageCost]
    machine: str
    command: str

    @property
    def seconds(self) -> float | None:
        """Wall time of all stages whose time is known."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if known else None


def provenance_of(study: Study, revision: str, root: Path = ROOT, base: Path = ARTIFACTS) -> Provenance:
    """Map a study and the git revision to where it comes from; `root` holds dvc.lock, `base` the stages' records."""
    preset = preset_of(study.config)
    differences = list(differences_of(study.config, load(preset_path(preset))))
    locked = _locked(root / "dvc.lock")
    before = {stage: entry for stage, entry in locked.items() if stage != REPORT}
    return Provenance(
        revision=revision,
        preset=preset,
        differences=differences,
        lock=digest(before) if before else "",
        stages=[_cost(study, stage, locked, base) for stage in STAGES],
        machine=hardware(),
        command=command_of(revision, preset, differences),
    )


def preset_of(config: Config) -> str:
    """The preset that a study started from, by its experiment's name; else the default."""
    return config.experiment if (PRESETS / f"{config.experiment}.yaml").exists() else DEFAULT


def differences_of(config: Config, preset: Config) -> Iterator[Difference]:
    """Map a study and a preset to the settings in which they differ, by key path."""
    ours, theirs = (dict(_leaves(settings.model_dump(mode="json"))) for settings in (config, preset))
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            yield Difference(key=key, preset=theirs.get(key, ""), ours=ours.get(key, ""))


def command_of(revision: str, preset: str, differences: Sequence[Difference]) -> str:
    """The shell command that makes the study again from a clone; changed settings stand beside the page."""
    checkout = "" if revision == "none" else f"git checkout {revision.removesuffix('-dirty')} && "
    if not differences:
        return f"{checkout}make repro PRESET={preset}"
    return f"{checkout}cp artifacts/{REPORT}/{SETTINGS} {SETTINGS} && make repro"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value of nested settings as text, by its key path; a list is one value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, "null" if value is None else str(value)


def _locked(path: Path) -> Mapping[str, Any]:
    """What dvc.lock says of each stage; nothing where there is none that can be read."""
    try:
        stages = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, KeyError, TypeError, YAMLError):
        return {}
    return stages if isinstance(stages, Mapping) else {}


def _cost(study: Study, stage: str, locked: Mapping[str, Any], base: Path) -> StageCost:
    record = read_stage(stage, base)
    jobs = _jobs(study, stage)
    outs = (locked.get(stage) or {}).get("outs") or [{}]
    return StageCost(
        name=stage,
        seconds=record.seconds if record else None,
        job_seconds=sum(jobs.values()) if jobs else None,
        jobs=len(jobs),
        machine=record.machine if record else "",
        ended=record.ended if record else "",
        digest=str(outs[0].get("md5", "")),
    )


def _jobs(study: Study, stage: str) -> dict[str, float]:
    """Seconds of the jobs that a stage trained, by their keys; what several networks share counts once."""
    if stage == "pretrain":
        return {row.job: row.seconds for row in study.baselines.values()}
    trees = [network for network, _ in distinct(study.trees)] if stage == BRANCHED else []
    jobs = [job for chapter in study.chapters if chapter.name == stage for job in chapter.jobs()]
    return {key: item.seconds / len(item.keys) for item in (*trees, *jobs) for key in item.keys}
