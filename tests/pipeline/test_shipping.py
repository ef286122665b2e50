"""Prepared data reach machines that do not see them: whole, once, whoever is killed or cut short on the way."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs as pafs
import pytest

from pipeline import shipping, transport
from pipeline.artifacts import read_manifests
from pipeline.config import ROOT
from pipeline.shipping import obtain, publish, ready_cluster
from pipeline.storage import shown
from pipeline.visibility import Ask
from tests.pipeline.shipped import NAMES, content, obtaining, publishing, store, wanted

NOWHERE = Path("/nowhere/artifacts/prepare")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `prepare` leaves it, with two data sets."""
    return store(tmp_path_factory.mktemp("both"))


@pytest.fixture(params=["folder", "uri", "other"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage as a path, as a URI, and as a file system that is not the local one."""
    place = tmp_path / "the store"
    place.mkdir()
    if request.param == "other":
        system = pafs.SubTreeFileSystem(str(place), pafs.LocalFileSystem())
        monkeypatch.setattr(
            pafs, "FileSystem", SimpleNamespace(from_uri=lambda uri: (system, uri.removeprefix("other://")))
        )
        return "other://bucket/runs"
    return place.as_uri() if request.param == "uri" else str(place)


def silent(_: str) -> None:
    """Say nothing."""


def published(both: Path, tmp_path: Path) -> str:
    publish(both, str(tmp_path / "store"), NAMES, silent)
    return str(tmp_path / "store")


def folder_of(storage: str, both: Path, name: str = "tiny") -> Path:
    return Path(storage) / "data" / wanted(both)[name]


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What processes printed; each has ended well."""
    told = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), told
    return [out for out, _ in told]


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def test_data_arrive_as_they_were_stored(both: Path, storage: str, tmp_path: Path) -> None:
    """A job reads the same files in the same order, of one data set or of two side by side."""
    publish(both, storage, NAMES, silent)
    for names in (NAMES, NAMES[:1], NAMES[1:]):
        view = obtain(wanted(both, names), NOWHERE, storage, str(tmp_path / "cache"))
        assert content(view, names) == content(both, names)
    assert len(content(both)) > 12
    assert obtain(wanted(both), NOWHERE, storage, str(tmp_path / "cache")) == obtain(
        dict(reversed(wanted(both).items())), NOWHERE, storage, str(tmp_path / "cache")
    )
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert not leftovers(tmp_path)


def test_where_artifacts_are_seen_nothing_is_fetched(both: Path, tmp_path: Path) -> None:
    assert obtain(wanted(both), both, "/nowhere/storage", str(tmp_path / "cache")) == both
    assert not (tmp_path / "cache").exists()


def test_what_stands_is_not_copied_again(
    both: Path, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(both, storage, NAMES, silent)
    view = obtain(wanted(both), NOWHERE, storage, str(tmp_path / "cache"))
    monkeypatch.setattr(shipping, "upload", None)
    monkeypatch.setattr(shipping, "write", None)
    monkeypatch.setattr(shipping, "download", None)
    publish(both, storage, NAMES, silent)
    assert obtain(wanted(both), NOWHERE, storage, str(tmp_path / "cache")) == view


def test_two_drivers_publish_at_once(both: Path, tmp_path: Path) -> None:
    place = tmp_path / "store"
    ended([publishing(both, str(place), tmp_path / f"log{number}", 0.01) for number in range(2)])
    assert not leftovers(place)
    assert content(obtain(wanted(both), NOWHERE, str(place), str(tmp_path / "cache"))) == content(both)


def test_a_killed_driver_goes_on(both: Path, tmp_path: Path) -> None:
    place, log = tmp_path / "store", tmp_path / "log"
    first = publishing(both, str(place), log, 0.05)
    until(lambda: len(lines(log)) >= 5, first)
    first.kill()
    first.communicate()
    before = set(lines(log))
    with pytest.raises(ValueError, match=r"sees data set t\w+ neither in .*prepare nor in .*store/data/"):
        obtain(wanted(both), NOWHERE, str(place), str(tmp_path / "cache"))
    log.unlink()
    ended([publishing(both, str(place), log)])
    assert not before & set(lines(log))
    assert len(before) + len(lines(log)) >= len(content(both)) - transport.STREAMS, "renamed, but not written down"
    assert content(obtain(wanted(both), NOWHERE, str(place), str(tmp_path / "cache"))) == content(both)


def test_one_process_of_a_machine_fetches_and_the_others_wait(both: Path, tmp_path: Path) -> None:
    place = published(both, tmp_path)
    caches = [tmp_path / "machine a", tmp_path / "machine b"]
    racing = [obtaining(wanted(both), NOWHERE, place, cache, tmp_path / "log", 0.02) for cache in caches * 3]
    views = [Path(out.strip()) for out in ended(racing)]
    assert set(views) == {view for view in views if view.is_relative_to(caches[0]) or view.is_relative_to(caches[1])}
    assert len(set(views)) == 2
    assert set(Counter(lines(tmp_path / "log")).values()) == {1}, "each file once a machine"
    for view in set(views):
        assert content(view) == content(both)


def test_where_the_process_that_fetches_is_killed_another_goes_on(both: Path, tmp_path: Path) -> None:
    place, cache, log = published(both, tmp_path), tmp_path / "cache", tmp_path / "log"
    first = obtaining(wanted(both), NOWHERE, place, cache, log, 0.1)
    until(lambda: len(lines(log)) >= 3, first)
    waiting = obtaining(wanted(both), NOWHERE, place, cache, log)
    time.sleep(0.2)
    assert waiting.poll() is None
    first.kill()
    first.communicate()
    (out,) = ended([waiting])
    assert content(Path(out.strip())) == content(both)
    assert not leftovers(cache)
    counts = Counter(lines(log))
    assert set(counts.values()) == {1}
    assert len(counts) >= len(content(both)) - transport.STREAMS, "it had renamed some without writing that down"


@pytest.mark.parametrize("damage", ["cut short", "gone", "altered"])
def test_a_damaged_published_file_never_counts(both: Path, tmp_path: Path, damage: str) -> None:
    """The driver's next start copies again what is not there or not of the right size."""
    place, cache = published(both, tmp_path), tmp_path / "cache"
    shard = sorted(folder_of(place, both).glob("train/*.arrow"))[2]
    data = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(data[:-9] if damage == "cut short" else bytes([data[0] ^ 1]) + data[1:])
    for _ in range(2):
        with pytest.raises(ValueError, match="is not what was published" if damage == "altered" else "cut short"):
            obtain(wanted(both), NOWHERE, place, str(cache))
    assert not [path for path in cache.rglob("whole.json") if path.parent.name == shard.parts[-3]]
    assert not list(cache.rglob(f"{shard.parts[-3]}/train/{shard.name}"))
    if damage == "altered":
        shard.unlink()  # as the message says
    publish(both, place, NAMES, silent)
    assert shard.read_bytes() == data
    assert content(obtain(wanted(both), NOWHERE, place, str(cache))) == content(both)


def test_a_file_cut_short_in_the_cache_is_fetched_again(both: Path, tmp_path: Path) -> None:
    place, cache = published(both, tmp_path), str(tmp_path / "cache")
    view = obtain(wanted(both), NOWHERE, place, cache)
    shard = sorted((view / "tiny" / "train").glob("*.arrow"))[1]
    os.truncate(shard, 100)
    assert content(obtain(wanted(both), NOWHERE, place, cache)) == content(both)


def test_a_storage_that_is_away_for_a_while_is_waited_for(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was copied before counts; after some tries the message says how to go on."""
    inner, tried, said = shipping.upload, Counter[str](), list[str]()

    def upload(path: Path, system: pafs.FileSystem, target: str) -> str:
        tried[target] += 1
        if sum(tried.values()) in (4, 9):
            raise OSError("the network is away")
        return inner(path, system, target)

    monkeypatch.setattr(transport, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(transport, "STREAMS", 1)
    monkeypatch.setattr(shipping, "upload", upload)
    publish(both, str(tmp_path / "store"), NAMES, said.append)
    assert said == ["the network is away; trying again in 0 s"] * 2
    assert sorted(tried.values())[-3:] == [1, 2, 2]
    view = obtain(wanted(both), NOWHERE, str(tmp_path / "store"), str(tmp_path / "cache"))
    assert content(view) == content(both)

    def away(*_: Any) -> None:
        raise OSError("the network is away")

    monkeypatch.setattr(shipping, "upload", away)
    with pytest.raises(ValueError, match=r"tiny can't be copied to \S+: the network is away; the same command goes on"):
        publish(both, str(tmp_path / "other"), NAMES, silent)
    monkeypatch.setattr(shipping, "download", away)
    with pytest.raises(OSError, match="the network is away"):
        obtain(wanted(both), NOWHERE, str(tmp_path / "store"), str(tmp_path / "second cache"))


def test_no_key_of_a_storage_is_shown() -> None:
    uri = "s3://AKIA:secret@bucket/runs/?endpoint_override=10.0.0.9"
    assert shipping.Published(storage=uri, fingerprint="abc").path == "s3://bucket/runs/data/abc"
    assert shown("/a/b@c?d") == "/a/b@c?d"


def test_artifacts_that_are_not_what_their_manifest_says_are_not_published(both: Path, tmp_path: Path) -> None:
    shutil.copytree(both, tmp_path / "mine")
    shard = next((tmp_path / "mine" / "tiny" / "val").glob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"tiny: shards are not those of manifest\.json; run `dvc repro -f prepare`"):
        publish(tmp_path / "mine", str(tmp_path / "store"), NAMES, silent)
    assert not list((tmp_path / "store").rglob("*.arrow"))
    publish(both, str(tmp_path / "store"), NAMES, silent)
    view = obtain(wanted(both), NOWHERE, str(tmp_path / "store"), str(tmp_path / "cache"))
    assert content(view) == content(both)


def _escaping(whole: dict[str, Any]) -> Any:
    (_, *rest), *others = whole["files"]
    return whole | {"files": [["../../../escaped.arrow", *rest], *others]}


@pytest.mark.parametrize(
    "change",
    [
        _escaping,
        lambda whole: whole | {"files": whole["files"][1:]},
        lambda whole: whole | {"files": [[file, "9", sha256] for file, _, sha256 in whole["files"]]},
        lambda whole: whole | {"meaning": {}},
        lambda whole: {"files": whole["files"]},
        lambda whole: whole["files"],
        lambda _: [1],
        lambda _: None,
    ],
)
def test_a_listing_that_is_not_of_the_data_set_is_refused(
    both: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    place = published(both, tmp_path)
    listing = folder_of(place, both) / "whole.json"
    listing.write_text(json.dumps(change(json.loads(listing.read_text()))))
    with pytest.raises(ValueError, match=r"whole\.json is not of this data set: delete that folder"):
        obtain(wanted(both), NOWHERE, place, str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_no_room_is_said_before_anything_is_fetched(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = published(both, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"tiny takes \S+ kB more on this disk, 1\.0 kB are free\. Delete data sets"):
        obtain(wanted(both), NOWHERE, place, str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_large_set_says_how_far_it_is(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(transport, "SAY_SECONDS", 0.0)
    publish(both, str(tmp_path), NAMES[:1], said.append)
    assert all(line.startswith("publish tiny: ") for line in said)
    assert len(said) == len(content(both, NAMES[:1]))
    assert said[-1].endswith(", 0 s left")


# Machines of a cluster, played by this one: what each sees in place of the storage and of the prepared data.
def cluster(views: Mapping[str, Mapping[str, Any]], asked: list[Any] | None = None) -> Ask:
    def ask(function: Callable[[Any], Any], argument: Any) -> dict[str, Any]:
        if asked is not None:
            asked.append(argument)
        return {address: function(replace(argument, **view)) for address, view in views.items()}

    return ask


def test_a_storage_that_a_machine_does_not_see_is_refused(both: Path, tmp_path: Path) -> None:
    mine, other = str(tmp_path / "mine"), str(tmp_path / "other")
    ask = cluster({"10.0.0.1": {}, "10.0.0.3": {"storage": other}, "10.0.0.4": {"storage": "/nowhere"}})
    with pytest.raises(ValueError, match=r"storage \S+/mine is not seen by 10\.0\.0\.3 \(.*\); 10\.0\.0\.4 .* s3://"):
        ready_cluster(both, mine, NAMES, ask, silent)
    assert not list(Path(mine).rglob("*")), "the mark is taken away"


def test_a_storage_without_a_way_to_it_says_why(both: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"machine\.yaml storage \S+ can't be written here: "):
        ready_cluster(both, str(tmp_path / "file" / "below"), NAMES, cluster({}), silent)
    ask = cluster({"10.0.0.3": {"storage": str(tmp_path / "file" / "below")}})
    with pytest.raises(ValueError, match=r"is not seen by 10\.0\.0\.3 \("):
        ready_cluster(both, str(tmp_path / "store"), NAMES, ask, silent)


def test_data_are_published_where_a_machine_lacks_one(both: Path, tmp_path: Path) -> None:
    """An older artifacts/ folder lacks what it has under another fingerprint; then all go, for jobs of several."""
    older, said = tmp_path / "older", list[str]()
    shutil.copytree(both, older)
    manifests = json.loads((older / "manifest.json").read_text())
    manifests["twin"]["fingerprint"] = "0" * 16
    (older / "manifest.json").write_text(json.dumps(manifests))
    place = str(tmp_path / "store")
    ready_cluster(both, place, NAMES, cluster({"a": {}, "b": {}}), said.append)
    assert not said
    assert not (Path(place) / "data").exists()
    ready_cluster(both, place, NAMES, cluster({"a": {}, "b": {"prepared": older}}), said.append)
    assert said[0] == f"1 of 2 machines do not see {both}: they fetch data from {place}"
    assert obtain(wanted(both, NAMES[:1]), older, place, str(tmp_path / "cache")) == older
    assert content(obtain(wanted(both), older, place, str(tmp_path / "cache"))) == content(both)


def test_an_object_store_always_has_the_data(both: Path, storage: str) -> None:
    """Its machines come and go; one that comes late may see no artifacts."""
    asked: list[Any] = []
    ready_cluster(both, storage, NAMES, cluster({"a": {}}, asked), silent)
    system, base = pafs.FileSystem.from_uri(storage)
    there = system.get_file_info(f"{base}/data").type == pafs.FileType.Directory
    assert there == storage.startswith("other://")
    assert asked[0].datasets == {name: item.fingerprint for name, item in read_manifests(both).items()}


@pytest.fixture
def alone() -> Callable[[str, str], str]:
    """Run a program in a mount namespace of its own, after shell commands that change what it sees."""
    able = shutil.which("unshare") and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0
    if os.geteuid() != 0 or not able:
        pytest.skip("needs root and mount namespaces")

    def run(mounts: str, program: str) -> str:
        command = ["unshare", "-m", "sh", "-ec", f'{mounts}\nexec "$0" -c "$1"', sys.executable, program]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    return run


def test_a_machine_with_other_disks(both: Path, tmp_path: Path, alone: Callable[[str, str], str]) -> None:
    """Under an empty disk over artifacts/ and the cache, everything comes from the storage."""
    place, cache = published(both, tmp_path), tmp_path / "cache"
    cache.mkdir()
    program = f"""
from pathlib import Path
from pipeline.shipping import obtain
from pipeline.visibility import Sought, look
seen = look(Sought(storage={place!r}, mark="data/none", prepared=Path({str(both)!r}), datasets={wanted(both)!r}))
view = obtain({wanted(both)!r}, Path({str(both)!r}), {place!r}, {str(cache)!r})
size = sum(path.stat().st_size for name in {NAMES} for path in view.glob(f"{{name}}/*/*.arrow"))
print(seen.lacking, view.is_relative_to({str(cache)!r}), size)
"""
    out = alone(f"mount -t tmpfs none '{both}'; mount -t tmpfs none '{cache}'", program)
    assert out.strip() == f"{NAMES} True {sum(map(len, content(both).values()))}"
    assert not list(cache.iterdir())


def test_a_disk_that_fills_up_on_the_way(both: Path, tmp_path: Path, alone: Callable[[str, str], str]) -> None:
    """As when others write there too: the room was said to be there, the write fails, the message is the same."""
    place, cache = published(both, tmp_path), tmp_path / "cache"
    cache.mkdir()
    program = f"""
import shutil
from pathlib import Path
from types import SimpleNamespace
from pipeline.shipping import obtain
shutil.disk_usage = lambda _: SimpleNamespace(free=10**12)
try:
    obtain({wanted(both)!r}, Path("/nowhere"), {place!r}, {str(cache)!r})
except ValueError as error:
    print(error, len(list(Path({str(cache)!r}).rglob("whole.json"))))
"""
    out = alone(f"mount -t tmpfs -o size=100k none '{cache}'", program)
    assert "data set tiny takes" in out
    assert "set machine.yaml cache to a folder on another disk" in out
    assert out.strip().endswith(" 0")


def test_a_storage_that_fills_up(both: Path, tmp_path: Path, alone: Callable[[str, str], str]) -> None:
    """It is said at once, and no half file is left."""
    program = f"""
from pathlib import Path
from pipeline.shipping import publish
try:
    publish(Path({str(both)!r}), {str(tmp_path / "store")!r}, {NAMES}, print)
except ValueError as error:
    print(error, len(list(Path({str(tmp_path)!r}).rglob("*.part"))))
"""
    (tmp_path / "store").mkdir()
    out = alone(f"mount -t tmpfs -o size=100k none '{tmp_path}/store'", program)
    assert out.startswith("data set tiny can't be copied to ")
    assert "No space left" in out
    assert out.strip().endswith("the same command goes on from here 0")
