"""Wherever a job is stopped and whatever is damaged, it ends as if nothing had been."""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch

from pipeline import loop
from pipeline.artifacts import read_manifests
from pipeline.checkpoints import find, kept_weights, load, save, save_best
from pipeline.jobs import TrainJob
from pipeline.loop import conclude, train
from pipeline.moe_jobs import moe_trials
from pipeline.storage import JobFolder
from pipeline.training_state import EpochRecord
from tests.pipeline.cases import DECODING, cut_short, make_job, same, site
from tests.pipeline.expert_study import SINGLE, prepare_all, study

pytestmark = pytest.mark.filterwarnings(DECODING)
LIVELY = {"epochs": 3, "batch": 12, "ema": 0.9, "select": "last", "augment": {"flip": 0.5, "crop": 0.7}}
STRATEGIES = ("branched", "taps", "moe")


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A job that nothing disturbed, with a checkpoint after every step, all of them kept."""

    job: TrainJob
    prepared: Path
    storage: Path
    records: list[EpochRecord]

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").iterdir())

    @property
    def folder(self) -> Path:
        return self.storage / "jobs" / self.job.key

    def until(self, checkpoint: Path, storage: Path) -> Path:
        """Another storage, as if this job had been stopped right after a checkpoint, with two of them kept."""
        copy, place = storage / "jobs" / self.job.key, self.checkpoints.index(checkpoint)
        for part in ("checkpoints", "best"):
            (copy / part).mkdir(parents=True)
        for file in self.checkpoints[max(0, place - 1) : place + 1]:
            shutil.copy(file, copy / "checkpoints")
            if best := file.stem[18:]:
                shutil.copy(self.folder / "best" / f"{best}.pt", copy / "best")
        shutil.copy(self.folder / "history.jsonl", copy)
        return copy


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def job_of(strategy: str, prepared: Path, folder: Path) -> tuple[TrainJob, Path]:
    """A job of a strategy, and where its data lie."""
    manifests = read_manifests(prepared)
    if strategy == "branched":
        groups = ((0, 0), (0, 0), (0, 1), (0, 1))
        return make_job(manifests, groups=groups, loss_weights="uncertainty", **LIVELY), prepared
    if strategy == "taps":
        plain = make_job(manifests, epochs=2, batch=12, ema=0.8)
        joint = replace(plain.model, strategy="taps", groups=(), settings=(("joint", True),))
        return replace(plain, model=joint, lam=0.5, lam_warmup=1), prepared
    own = prepare_all(folder / "data")
    config = study(moe={"baselines": [], "tasks": ["kind", "field"]}, train={"epochs": 2, "lr": 0.01})
    (trial,) = moe_trials(config, own, SINGLE)
    return trial.job, folder / "data"


@pytest.fixture(scope="module", params=STRATEGIES)
def whole(request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return undisturbed(request.param, prepared, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def branched(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return undisturbed("branched", prepared, tmp_path_factory.mktemp("branched"))


def undisturbed(strategy: str, prepared: Path, folder: Path) -> Whole:
    job, data = job_of(strategy, prepared, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECK_EVERY", 1)
        records = list(train(job, site(data, folder, checkpoint_seconds=0.0, checkpoints=1000)))
    return Whole(job=job, prepared=data, storage=folder, records=records)


def assert_ends_alike(whole: Whole, storage: Path, records: list[EpochRecord] | None = None) -> None:
    """Go on; the state, the kept weights and the records are those of the undisturbed run, to the bit."""
    found = records or list(train(whole.job, site(whole.prepared, storage)))
    assert [replace(record, seconds=0.0) for record in found] == [
        replace(record, seconds=0.0) for record in whole.records
    ]
    folders = [JobFolder(str(place), whole.job.key) for place in (storage, whole.storage)]
    mine, theirs = (state_of(folder) for folder in folders)
    assert_equal(mine, theirs)
    kept, expected = (kept_weights(folder) or {} for folder in folders)
    assert kept
    assert same(kept, expected)
    assert [record["epoch"] for record in folders[0].read_history()] == [record.epoch for record in found]


def state_of(folder: JobFolder) -> dict[str, Any]:
    saved, damaged = find(folder)
    assert saved is not None
    assert not damaged
    return lasting(saved.state)


def lasting(state: Mapping[str, Any]) -> dict[str, Any]:
    """What does not tell the time."""
    return {key: value for key, value in state.items() if key not in ("history", "spent")}


def assert_equal(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, Mapping):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    else:
        assert left == right


def test_stopped_at_a_checkpoint_a_job_ends_as_one_that_ran_through(whole: Whole, tmp_path: Path) -> None:
    whole.until(whole.checkpoints[len(whole.checkpoints) // 2], tmp_path)
    assert_ends_alike(whole, tmp_path)


def test_from_any_checkpoint_the_next_one_is_reached(whole: Whole, tmp_path: Path) -> None:
    """One step, and an epoch's end where there is one: the rest is induction."""
    assert [int(file.name[:8]) for file in whole.checkpoints] == list(range(1, whole.records[-1].step + 1))
    for place, (checkpoint, following) in enumerate(pairwise(whole.checkpoints)):
        storage = tmp_path / str(place)
        whole.until(checkpoint, storage)
        cut_short(whole.job, site(whole.prepared, storage), 1)
        found = JobFolder(str(storage), whole.job.key)
        saved, _ = find(found)
        assert saved is not None
        assert saved.best == following.stem[18:]
        assert_equal(lasting(saved.state), lasting(torch.load(following, weights_only=True)))


def test_a_checkpoint_holds_all_that_training_has_changed(whole: Whole) -> None:
    """Scores, estimates of routing, averages and learned weights are tensors of these three; each has moved."""
    first, last = (torch.load(file, weights_only=True) for file in (whole.checkpoints[0], whole.checkpoints[-1]))
    names = {"taps": ("score",), "moe": ("estimate", "router"), "branched": ("heads",)}[whole.job.model.strategy]
    for name in names:
        moved = [not torch.equal(first["network"][key], last["network"][key]) for key in last["network"] if name in key]
        assert any(moved), name
    assert first["optimiser"]["state"]
    assert ("average" in last) == bool(whole.job.train.ema)
    assert bool(last["weighing"]) == (whole.job.loss_weights != "fixed")


DAMAGES = {
    "empty": lambda data: data[:0],
    "half": lambda data: data[: len(data) // 2],
    "all but a byte": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "first bit": lambda data: flipped(data, 0),
    "middle bit": lambda data: flipped(data, len(data) // 2),
    "last bit": lambda data: flipped(data, len(data) - 1),
    "a byte more": lambda data: data + b"\0",
}


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("part", ["checkpoint", "best"])
@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_checkpoint_is_passed_over(
    branched: Whole, tmp_path: Path, damage: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In it or in the weights that go with it; the one before has others."""
    newest = next(file for file in branched.checkpoints if "-0002-" in file.name)
    copy = branched.until(newest, tmp_path)
    best = copy / "best" / f"{newest.stem[18:]}.pt"
    file = copy / "checkpoints" / newest.name if part == "checkpoint" else best
    before = int(branched.checkpoints[branched.checkpoints.index(newest) - 1].name[:8])
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    records = list(train(branched.job, site(branched.prepared, tmp_path)))
    said = capsys.readouterr().err.splitlines()
    assert said == [f"scene-depth: {newest.name} damaged in {copy}; goes on from step {before}"]
    assert_ends_alike(branched, tmp_path, records)


@pytest.mark.parametrize("part", ["checkpoints", "best"])
def test_where_all_is_damaged_it_begins_anew(
    branched: Whole, tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = branched.until(branched.checkpoints[-1], tmp_path)
    for file in (copy / part).iterdir():
        file.write_bytes(b"lost")
    (copy / "history.jsonl").write_bytes((copy / "history.jsonl").read_bytes()[:-5])
    records = list(train(branched.job, site(branched.prepared, tmp_path)))
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("scene-depth: 000000")
    assert said.endswith("; begins anew")
    assert_ends_alike(branched, tmp_path, records)


def test_a_history_that_was_lost_is_written_again(branched: Whole, tmp_path: Path) -> None:
    copy = branched.until(branched.checkpoints[-1], tmp_path)
    (copy / "history.jsonl").write_bytes(b"\0" * 100)
    assert_ends_alike(branched, tmp_path)
    assert conclude(branched.job, site(branched.prepared, tmp_path))["epoch"] in (1, 2, 3)


STATES = [{"step": step, "weights": torch.full((3,), float(step))} for step in range(1, 6)]


def filled(folder: JobFolder) -> list[Path]:
    """Two checkpoints, each with best weights of its own: the files, the newest checkpoint and its weights first."""
    for state in STATES[:2]:
        best = save_best(folder, {"w": state["weights"]}, state["step"])
        save(folder, state, best, 2)
    files = [sorted((Path(folder.path) / part).iterdir())[-1] for part in ("checkpoints", "best")]
    return [*files, *(file for part in ("checkpoints", "best") for file in (Path(folder.path) / part).iterdir())]


@pytest.mark.parametrize("which", [0, 1])
def test_no_byte_may_differ_and_none_be_missing(tmp_path: Path, which: int) -> None:
    folder = JobFolder(str(tmp_path), "abc")
    files = filled(folder)
    whole = {file: file.read_bytes() for file in files}
    data, newest = whole[files[which]], files[0].name
    for broken in [
        *(flipped(data, place) for place in range(0, len(data), 17)),
        *(data[:n] for n in range(0, 999, 37)),
    ]:
        for file in files:
            file.write_bytes(whole[file])
        files[which].write_bytes(broken)
        with pytest.raises(ValueError, match=r"damaged|another did not"):
            _ = kept_weights(folder) if which else load(folder, newest)
        saved, damaged = find(folder)
        assert damaged == [newest]
        assert saved is not None
        assert saved.state["step"] == 1
        assert not files[0].exists()
        assert same(kept_weights(folder) or {}, {"w": STATES[0]["weights"]})


def test_names_say_step_checksum_and_which_weights_belong_to_it(tmp_path: Path) -> None:
    folder = JobFolder(str(tmp_path), "abc")
    save(folder, STATES[0], "", 2)
    best = save_best(folder, {}, 1)
    save(folder, STATES[1], best, 2)
    first, second = sorted((Path(folder.path) / "checkpoints").iterdir())
    assert re.fullmatch(r"00000001-[0-9a-f]{8}\.pt", first.name)
    assert second.name == f"00000002-{crc32(second.read_bytes()):08x}-{best}.pt"
    assert best == f"0001-{crc32((Path(folder.path) / 'best' / f'{best}.pt').read_bytes()):08x}"
    saved, _ = find(folder)
    assert saved is not None
    assert saved.best == best
    assert kept_weights(folder) == {}
    assert kept_weights(JobFolder(str(tmp_path), "other")) is None


@pytest.mark.parametrize("keep", [2, 3])
def test_the_last_few_are_kept_with_the_weights_that_they_name(tmp_path: Path, keep: int) -> None:
    folder = JobFolder(str(tmp_path), "abc")
    bests = {1: 1, 2: 1, 3: 3, 4: 3, 5: 5}
    names: dict[int, str] = {}
    for state in STATES:
        step = state["step"]
        if bests[step] == step:
            names[step] = save_best(folder, {"w": state["weights"]}, step)
        save(folder, state, names[bests[step]], keep)
        left = [int(name[:8]) for name in folder.names("checkpoints")]
        assert left == list(range(1, step + 1))[-keep:]
        assert {int(name[:4]) for name in folder.names("best")} == {bests[one] for one in left}


def test_another_process_that_lags_behind_or_runs_ahead_takes_nothing_away(tmp_path: Path) -> None:
    """Two that save in turns, and don't agree in a single bit: there is always a whole checkpoint to go on from."""
    folder = JobFolder(str(tmp_path), "abc")
    order = [("a", 3), ("a", 4), ("b", 1), ("b", 2), ("a", 5), ("b", 3), ("b", 4), ("b", 5), ("b", 6), ("a", 6)]
    newest = 0
    for who, step in order:
        best = save_best(folder, {"w": torch.tensor([ord(who), step])}, step)
        save(folder, {"step": step, "who": who}, best, 2)
        newest = max(newest, step)
        saved, damaged = find(folder)
        assert saved is not None
        assert not damaged
        assert saved.state["step"] == newest
        assert len({name[:8] for name in folder.names("checkpoints")}) <= 2


def test_weights_that_another_process_is_about_to_refer_to_stay(tmp_path: Path) -> None:
    folder = JobFolder(str(tmp_path), "abc")
    first = save_best(folder, {"w": torch.zeros(1)}, 1)
    ahead = save_best(folder, {"w": torch.ones(1)}, 2)
    for state in STATES[:3]:
        save(folder, state, first, 2)
    save(folder, STATES[3], ahead, 2)
    saved, damaged = find(folder)
    assert not damaged
    assert saved is not None
    assert saved.best == ahead


def test_what_another_process_replaces_while_one_looks_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = JobFolder(str(tmp_path), "abc")
    for state in STATES[:2]:
        save(folder, state, "", 2)
    read, busy = JobFolder.read, False

    def late(self: JobFolder, name: str) -> bytes | None:
        nonlocal busy
        if not busy:
            busy = True
            for state in STATES[2:]:
                save(self, state, "", 2)
        return read(self, name)

    monkeypatch.setattr(JobFolder, "read", late)
    saved, _ = find(folder)
    assert saved is not None
    assert saved.state["step"] == 5


def test_two_processes_on_one_job_both_end_as_one_would(branched: Whole, tmp_path: Path) -> None:
    """One that outlived its driver goes on beside the one that was started in its place."""
    where = site(branched.prepared, tmp_path)
    orphan = train(branched.job, where)
    first = next(orphan)
    heir = train(branched.job, where)
    found = [next(heir), next(heir)]
    theirs = [first, *orphan]
    assert_ends_alike(branched, tmp_path, theirs)
    assert_ends_alike(branched, tmp_path, [*found, *heir])
    assert len(JobFolder(str(tmp_path), branched.job.key).names("checkpoints")) <= 4


def test_drafts_of_killed_writers_are_removed(branched: Whole, tmp_path: Path) -> None:
    copy = branched.until(branched.checkpoints[-2], tmp_path)
    drafts = [copy / "result.json.0a.part", copy / "checkpoints" / "00000009.17.part", copy / "bundle" / "w.part"]
    for draft in drafts:
        draft.parent.mkdir(exist_ok=True)
        draft.write_bytes(b"ha")
    assert_ends_alike(branched, tmp_path)
    assert not any(draft.exists() for draft in drafts)
