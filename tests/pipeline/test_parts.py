"""Parts of a data set: streamed, made by any number of processes, kept when `prepare` is stopped."""

import os
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from models.spec import Column
from pipeline import parts, shard_writing
from pipeline.artifacts import DatasetManifest, keeping, writing
from pipeline.config import Config
from pipeline.datasets import Source
from pipeline.machine import Machine
from pipeline.preparing import assign_splits, declare, prepare_dataset
from pipeline.shard_writing import SHARD_BYTES, Part, Recipe, rows_of_batch, rows_of_shard, write_part
from tests.pipeline.cases import settings
from tests.pipeline.number_source import COLUMNS, SIZE, Numbers, rows
from tests.pipeline.trouble_source import Deadly, Watched, loaded

ROOT = Path(__file__).parents[2]
IMAGES = 200
CONFIG = settings({"images": None, "min_class_count": 15})  # without class d


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 32 rows."""
    monkeypatch.setattr(shard_writing, "ROWS", 32)


def store(
    base: Path, source: Source, config: Config = CONFIG, said: list[str] | None = None, **machine: Any
) -> DatasetManifest:
    """What the stage does with one data set."""
    say = [].append if said is None else said.append
    with keeping("prepare", base) as kept, writing("prepare", base) as folder:
        return prepare_dataset(declare("tiny", config, source), source, config, Machine(**machine), folder, say, kept)


def files(base: Path) -> dict[str, bytes]:
    assert [path.name for path in base.iterdir()] == ["prepare"], "a finished stage leaves nothing else"
    return {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that one undisturbed process leaves."""
    base = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writing, "ROWS", 32)
        store(base, Numbers(rows(IMAGES)), prepare_workers=1)
    return files(base)


def kept(base: Path) -> set[str]:
    return {path.stem for path in base.glob(".prepare-kept/tiny/*.json")}


def last_row() -> str:
    """The row that is read last where one process reads all."""
    return assign_splits(rows(IMAGES), val=0.2, test=0.2, seed=0)["test"][-1].id


def test_three_processes_store_what_one_does_and_import_no_torch(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WITHOUT_TORCH", "1")
    store(tmp_path / "three", Watched(rows(IMAGES), tmp_path / "log"), prepare_workers=3)
    assert files(tmp_path / "three") == whole
    assert sorted(loaded(tmp_path / "log"), key=int) == [row.id for row in rows(IMAGES)]


def test_what_was_finished_before_a_stop_is_not_made_again(whole: dict[str, bytes], tmp_path: Path) -> None:
    source, log = Deadly(rows(IMAGES), tmp_path / "log"), tmp_path / "log"
    source.times, source.stops = 1, True
    base = tmp_path / "base"
    with pytest.raises(KeyboardInterrupt):
        store(base, source, prepare_workers=1)
    assert not (base / "prepare").exists()
    before, done = loaded(log), len(kept(base))
    assert done > 0
    said: list[str] = []
    store(base, source, said=said, prepare_workers=1)
    assert files(base) == whole
    again = set(before) & set(loaded(log)[len(before) :])
    assert 0 < len(again) <= 32, "the part that was being made"
    assert f"{len(before) - len(again)} of {IMAGES} images were stored before it stopped" in said[0]


def test_a_killed_process_is_replaced(whole: dict[str, bytes], tmp_path: Path) -> None:
    source = Deadly(rows(IMAGES), tmp_path / "log")
    source.times = 1
    store(tmp_path / "base", source, prepare_workers=2, max_failures=1)
    assert files(tmp_path / "base") == whole
    assert loaded(tmp_path / "log").count(source.killer) == 2


def test_a_process_that_is_killed_every_time_stops_it_with_a_message(whole: dict[str, bytes], tmp_path: Path) -> None:
    source, base = Deadly(rows(IMAGES), tmp_path / "log"), tmp_path / "base"
    source.killer, source.times = last_row(), 1
    with pytest.raises(
        ValueError, match=r"1 of 1 tries .* memory .*prepare_workers in machine\.yaml.* goes on from here"
    ):
        store(base, source, prepare_workers=2, max_failures=0)
    assert kept(base)
    before = loaded(tmp_path / "log")
    store(base, source, prepare_workers=1)
    assert files(base) == whole
    assert len(loaded(tmp_path / "log")) - len(before) < IMAGES


@pytest.mark.slow
def test_a_killed_stage_takes_its_processes_with_it_and_goes_on(whole: dict[str, bytes], tmp_path: Path) -> None:
    base, log, said = tmp_path / "base", tmp_path / "log", tmp_path / "settings.json"
    said.write_text(CONFIG.model_dump_json())
    command = [
        sys.executable,
        "-c",
        "from pipeline import shard_writing; from tests.pipeline import trouble_source as t",
    ]
    command[-1] += "; shard_writing.ROWS = 32; import sys; t.main(*sys.argv[1:])"
    with subprocess.Popen([*command, str(said), str(base), str(log)], cwd=ROOT, stdout=subprocess.DEVNULL) as stage:
        until(lambda: len(kept(base)) >= 2, stage)
        stage.kill()
    before = len(kept(base))
    until_quiet(log)
    assert before <= len(kept(base)) < len(whole)
    done = loaded(log)
    store(base, Numbers(rows(IMAGES)), prepare_workers=1)
    assert files(base) == whole
    assert loaded(log) == done, "nobody is left who reads"


def until(true: Any, stage: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        assert stage.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)


def until_quiet(log: Path) -> None:
    """Until half a second has gone by without a row being read, of which each takes a fiftieth of that."""
    end, seen = time.monotonic() + 60, -1
    while seen != (seen := len(loaded(log))):
        assert time.monotonic() < end, "processes of a killed stage go on"
        time.sleep(0.5)


def test_parts_with_bad_rows_are_made_again_when_they_are_to_be_mended(whole: dict[str, bytes], tmp_path: Path) -> None:
    log, base = tmp_path / "log", tmp_path / "base"
    with pytest.raises(ValueError, match="1 of 200 rows are bad"):
        store(base, Watched(rows(IMAGES), log, bad=["7"]), prepare_workers=1)
    before = loaded(log)
    assert len(before) == IMAGES, "all rows were looked at"
    store(base, Watched(rows(IMAGES), log), prepare_workers=1)
    assert files(base) == whole
    assert "7" in loaded(log)[IMAGES:]
    assert len(loaded(log)) - IMAGES <= 32, "the other parts were kept"


def test_parts_with_bad_rows_are_kept_where_these_are_skipped(tmp_path: Path) -> None:
    log, base = tmp_path / "log", tmp_path / "base"
    config = settings({"images": None}, prepare={"on_bad": "skip"})
    source = Deadly(rows(IMAGES), log, bad=["7"])
    source.killer, source.times, source.stops = last_row(), 1, True
    with pytest.raises(KeyboardInterrupt):
        store(base, source, config, prepare_workers=1)
    manifest = store(base, source, config, prepare_workers=1)
    assert manifest.skipped == ("list.csv row 8: images/7.png: not an image",)
    assert loaded(log).count("7") == 1
    assert sum(manifest.counts.values()) == IMAGES - 1


@pytest.mark.parametrize("change", ["quality", "store", "size", "seed", "reader", "rows", "columns", "program"])
def test_what_decides_the_bytes_decides_the_key(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(config: Config, listed: Any, columns: dict[str, Column]) -> set[str]:
        recipe = recipe_of(tmp_path, columns=columns)
        facts = parts.settings_of("tiny", config, Machine())
        planned = parts.plan(recipe, {"train": listed}, facts, config.datasets["tiny"].reader)
        return {part.key for part in planned["train"]}

    plain, listed = settings({"images": None}), rows(64)
    before = keys(plain, listed, COLUMNS)
    assert before == keys(settings({"images": None, "val": 0.3, "weight": 2.0, "min_class_count": 3}), listed, COLUMNS)
    config, columns = plain, COLUMNS
    if change in ("quality", "store"):
        config = settings({"images": None}, prepare={"quality": 80} if change == "quality" else {"store": "raw"})
    elif change in ("size", "reader"):
        config = settings({"images": None, **({"size": (16, 16)} if change == "size" else {"reader": "folders"})})
    elif change == "seed":
        config = settings({"images": None}, seed=1)
    elif change == "rows":
        listed = [replace(row, group=f"{row.group}.") for row in listed]
    elif change == "columns":
        columns = COLUMNS | {"kind": replace(COLUMNS["kind"], classes=("a", "b", "d", "c"))}
    else:
        monkeypatch.setattr(parts, "PROGRAM", parts.PROGRAM[:-1])
    assert not before & keys(config, listed, columns)


@pytest.mark.parametrize("changed", ["labels.csv", "mask.png"])
def test_a_label_that_was_mended_after_a_stop_is_read_again(changed: str, tmp_path: Path) -> None:
    """Rows know their images, not what the table and the masks say of them."""
    (tmp_path / "labels.csv").write_text("image,kind,part:mask:a|b\na.jpg,elm,mask.png\n")
    (tmp_path / "mask.png").write_bytes(b"as it was")
    config = settings({"images": None, "root": str(tmp_path / "labels.csv")})
    before = parts.settings_of("tiny", config, Machine())
    assert parts.settings_of("tiny", config, Machine()) == before
    (tmp_path / changed).write_text((tmp_path / changed).read_text().replace("elm", "oak").replace("was", "should be"))
    assert parts.settings_of("tiny", config, Machine()) != before


def test_what_another_study_left_is_cleared_away(tmp_path: Path) -> None:
    source = Deadly(rows(IMAGES), tmp_path / "log")
    source.times, source.stops, base = 1, True, tmp_path / "base"
    with pytest.raises(KeyboardInterrupt):
        store(base, source, settings({"images": None}, prepare={"quality": 50}), prepare_workers=1)
    old = kept(base)
    source.times = 2
    with pytest.raises(KeyboardInterrupt):
        store(base, source, prepare_workers=1)
    assert old
    assert not old & {path.stem for path in base.glob(".prepare-kept/tiny/*")}


def test_a_shard_that_is_not_whole_is_made_again(whole: dict[str, bytes], tmp_path: Path) -> None:
    source, base = Deadly(rows(IMAGES), tmp_path / "log"), tmp_path / "base"
    source.times, source.stops = 1, True
    with pytest.raises(KeyboardInterrupt):
        store(base, source, prepare_workers=1)
    cut = next(base.glob(".prepare-kept/tiny/*.arrow"))
    os.truncate(cut, cut.stat().st_size // 2)
    store(base, source, prepare_workers=1)
    assert files(base) == whole


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    facts: dict[str, Any] = {"columns": COLUMNS, "size": SIZE, "store": "jpeg", "quality": 95, "folder": folder}
    return Recipe(source=Numbers([]), **facts | changes)


@pytest.mark.parametrize("store", ["jpeg", "raw"])
def test_a_shard_is_written_batch_by_batch(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds the cells of a batch, whatever the shard holds."""
    monkeypatch.setattr(shard_writing, "ROWS", 16)
    recipe = recipe_of(tmp_path, columns={"kind": COLUMNS["kind"]}, store=store, size=(64, 64))
    peaks = []
    for count in (64, 1024):
        tracemalloc.start()
        record = write_part(recipe, Part(key=str(count), rows=rows(count)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert record.count == count
        with pa.memory_map(str(tmp_path / f"{count}.arrow")) as file, pa.ipc.open_file(file) as shard:
            batches = [shard.get_batch(number) for number in range(shard.num_record_batches)]
            assert [len(batch) for batch in batches] == [16] * (count // 16)
            assert [name for batch in batches for name in batch["id"].to_pylist()] == [str(i) for i in range(count)]
    assert peaks[1] < peaks[0] * 1.5 + (1 << 19)


@pytest.mark.parametrize("store", ["jpeg", "raw"])
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (512, 1024)])
def test_rows_of_shards(size: tuple[int, int], store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writing, "ROWS", 256)
    most = SHARD_BYTES / (size[0] * size[1] * {"jpeg": 0.625, "raw": 3}[store])
    found = [rows_of_shard(count, size, store) for count in (1, 256, 32_768, 1_300_000, 100_000_000)]
    assert found == sorted(found)
    assert found[:3] == [min(256, int(most))] * 3, "small sets are cut finely, to be made in parallel"
    assert found[-1] == int(most)
    assert 1 <= rows_of_batch(size, store) <= 256


def test_a_million_images_make_shards_of_the_size_that_they_should_have() -> None:
    assert 1_300_000 / rows_of_shard(1_300_000, (224, 224), "jpeg") == pytest.approx(152, abs=1)


def test_lines_are_few_and_the_last_one_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SAY_SECONDS", 1e9)
    said: list[str] = []
    store(tmp_path, Numbers(rows(IMAGES)), said=said, prepare_workers=1)
    assert len(said) == 2
    assert f"{IMAGES} of {IMAGES} images, 0 s left" in said[-1]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert parts._duration(seconds) == text
