"""What damaged input once did, one case each: now the message that says so."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import bundle
from models.backbone import build_blocks
from models.spec import BackboneSpec
from pipeline.artifacts import read_json, read_table
from pipeline.config import ROOT, load
from pipeline.datasets.files import find
from pipeline.machine import load_machine, root_of
from pipeline.presets import adopt_preset
from tests.fuzz.test_bundles import save
from tests.fuzz.test_sources import PLANTED, Sets, read
from tests.fuzz.watching import confined

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
SETTINGS = {
    "aliases that fill the memory": (BOMB.encode(), r":1: more than 100,000 values"),
    "a value in itself": (b"seed: &a [*a]\n", r"(.|\n)*:1 seed: Input should be a valid integer"),
    "thousands of brackets": (b"a: " + b"[" * 100_000, r":1: more than 50 brackets"),
    "another encoding": (b"a: 1\nb: caf\xe9\n", r":2: not UTF-8"),
    "a control character": (b"a: 1\nb: \x1b[2J\n", r":2: not readable as YAML: the character"),
    "a version of YAML that isn't": (b"%YAML 9.9\n---\na: 1\n", r":1: not readable as YAML"),
    "a number of thousands of digits": (b"a: " + b"9" * 5000, r":1: not readable as YAML"),
    "a hexadecimal one": (b"seed: 0x" + b"f" * 5000, r"(.|\n)*:1 seed: .*a number of more than 200 digits"),
    "infinity": (b"train: {lr: .inf}\n", r"(.|\n)*:1 train.lr: Input should be a finite number"),
    "a seed that no generator takes": (b"seed: 18446744073709551616\n", r"(.|\n)*:1 seed: .*2147483647"),
    "a tag that names a function": (b"seed: !!python/object/apply:os.system [exit]\n", r"(.|\n)*:1 seed: "),
    "megabytes": (b"#" * (1 << 20) + b"\n", r":1: 1,048,577 bytes"),
}


@pytest.mark.parametrize(("data", "message"), SETTINGS.values(), ids=SETTINGS)
def test_settings(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    with confined(tmp_path), pytest.raises(ValueError, match=rf"params\.yaml{message}"):
        load(path)


def test_a_machine_that_is_no_section_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "data/scenes").mkdir(parents=True)
    (tmp_path / "machine.yaml").write_text("- jobs\n")
    with pytest.raises(ValueError, match=r"machine\.yaml:1"):
        adopt_preset("smoke", tmp_path / "data", tmp_path)
    assert (tmp_path / "machine.yaml").read_text() == "- jobs\n"


@pytest.mark.parametrize("root", ["~nobody at all/x", "a\0b"])
def test_a_root_that_no_folder_can_have(root: str, tmp_path: Path) -> None:
    config = load(ROOT / "presets/smoke.yaml")
    machine = load_machine(tmp_path / "none.yaml").model_copy(update={"roots": {"scenes": root}})
    with pytest.raises(ValueError, match=r"datasets\.scenes\.root .* no folder can have this name"):
        root_of("scenes", config, machine)


def test_a_name_that_is_too_long_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not found"):
        find("image", "a" * 300, tmp_path)


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    return Sets(tmp_path)


def not_text(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9] + b"\xc3(\n" + path.read_bytes()[9:])


def long_cell(path: Path) -> None:
    path.write_text("Filename;ClassId\n" + "a" * 200_000)


def first_line(path: Path) -> None:
    path.write_text("\n".join(["9" * 5000, *path.read_text().splitlines()[1:]]))


def replaced(old: bytes, new: bytes) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new, 1))

    return apply


def changed(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        tree = json.loads(path.read_bytes())
        change(tree)
        path.write_text(json.dumps(tree))

    return apply


def segments(value: Any) -> Callable[[Path], None]:
    return changed(lambda tree: tree["annotations"][0].update(segments_info=value))


LISTS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "celeba, no text": ("celeba", "list_attr_celeba.txt", not_text),
    "nyuv2, no text": ("nyuv2", "official_train.txt", not_text),
    "voc, no text": ("voc", "ImageSets/Main/train.txt", not_text),
    "gtsrb, no text": ("gtsrb", "GT-final_test.csv", not_text),
    "gtsrb, a long cell": ("gtsrb", "GT-final_test.csv", long_cell),
    "cub, an endless box": ("cub", "bounding_boxes.txt", replaced(b" 2.0 3.0", b" 2.0 1e999")),
    "domainnet, a class of thousands of digits": (
        "domainnet",
        "clipart_train.txt",
        replaced(b" 0\n", b" " + b"9" * 5000 + b"\n"),
    ),
    "celeba, a count of thousands of digits": ("celeba", "list_attr_celeba.txt", first_line),
    "panoptic, numbers for segments": ("coco", "panoptic_train2017.json", segments([1])),
    "panoptic, a list for a category": ("coco", "panoptic_train2017.json", segments([{"id": 1, "category_id": [1]}])),
    "panoptic, a segment's huge number": (
        "coco",
        "panoptic_train2017.json",
        segments([{"id": 10**30, "category_id": 1}]),
    ),
    "coco, a huge side": (
        "coco",
        "instances_train2017.json",
        changed(lambda tree: tree["images"][0].update(height=10**30)),
    ),
    "coco, a huge box": (
        "coco",
        "instances_train2017.json",
        changed(lambda tree: tree["annotations"][0].update(bbox=[10**400, 1, 1, 1])),
    ),
    "taskonomy, a header that is no literal": (
        "taskonomy",
        "point_0_view_0_domain_class_places.npy",
        replaced(b"{'descr'", b"{`descr'"),
    ),
}


@pytest.mark.parametrize(("reader", "file", "damage"), LISTS.values(), ids=LISTS)
def test_lists(sets: Sets, reader: str, file: str, damage: Callable[[Path], None]) -> None:
    planted = sets.of(reader)
    path = next(path for path in planted.lists if path.as_posix().endswith(file))
    damage(path)
    with pytest.raises(ValueError, match=path.name):
        read(planted, path)


def test_an_archive_is_not_taken_for_an_array(sets: Sets) -> None:
    planted = sets.of("taskonomy")
    path = next(path for path in planted.lists if path.suffix == ".npy")
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(365))
    with pytest.raises(ValueError, match="not an array of numpy"):
        read(planted, path)


OUTSIDE = ("../../secret", "/etc/passwd", "a/../../../secret", "C:\\secret", "a\0b")


@pytest.mark.parametrize("reader", [*PLANTED, "manifest"])
@pytest.mark.parametrize("word", OUTSIDE)
def test_no_list_leads_out_of_its_folder(sets: Sets, reader: str, word: str) -> None:
    """In every list the longest name of a picture, replaced by one that leads out; whatever its ending."""
    planted = sets.of(reader)
    names = {path.stem for path in planted.pictures}
    for path, data in planted.lists.items():
        if path.suffix not in (".csv", ".txt", ".json"):
            continue
        text = data.decode()
        held = sorted((name for name in names if name in text), key=len, reverse=True)[:1]
        for name in held:
            path.write_text(text.replace(name, json.dumps(word)[1:-1] if path.suffix == ".json" else word, 1))
            with confined(sets.folder / reader), suppress(ValueError):
                read(planted, path)
        path.write_bytes(data)


def test_artifacts_that_are_cut_off_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"a\.json: not JSON, or cut off; remove it"):
        read_json(tmp_path / "a.json")
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"a\.parquet: damaged; remove it"):
        read_table(tmp_path / "a.parquet")


def put(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw.update(values)


def in_task(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["tasks"][1].update(values)


def in_backbone(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["backbone"].update(values)


SPECS: Mapping[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a width of 10^9": (in_task(head_width=10**9), r"tasks\[1\]\.head_width: 1000000000, but int is expected"),
    "a width of 10^6": (in_task(head_width=10**6), "the weights are not those of spec.json.*heads.1"),
    "an image of 10^10 pixels": (in_backbone(size=[10**5, 10**5]), r"backbone\.size: .*16,777,216 pixels"),
    "a text for a number": (in_task(weight="1"), r"tasks\[1\]\.weight: '1', but float is expected"),
    "infinity": (in_task(weight=float("inf")), r"tasks\[1\]\.weight: inf"),
    "no tasks": (put(tasks=None), "tasks: None"),
    "tasks of one name": (in_task(name="classification"), "tasks: two are named 'classification'"),
    "an unknown entry": (put(__class__="os.system"), "__class__: unknown"),
    "an unknown strategy": (put(strategy="os.system"), "strategy 'os.system': use one of branched"),
    "an unknown kind": (in_task(kind="os.system"), "no network is like this: KeyError"),
    "a network of another's page": (in_backbone(name="hf-hub:timm/resnet18"), "is no timm network"),
    "a network of a folder": (in_backbone(name="local-dir:/etc"), "is no timm network"),
    "a module": (in_backbone(name="os"), "is no timm network"),
    "another tree": (put(groups=[[0, 1], [0, 0]]), "no network is like this: ValueError"),
}


@pytest.mark.parametrize(("change", "message"), SPECS.values(), ids=SPECS)
def test_specs(change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path) -> None:
    save("branched", tmp_path)
    raw = json.loads((tmp_path / "spec.json").read_bytes())
    change(raw)
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    with confined(tmp_path), pytest.raises(ValueError, match=message) as caught:
        bundle.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"[" * 10_000, b"\xff", b'{"format": 2}', b"9" * 5000])
def test_a_spec_that_is_none(text: bytes, tmp_path: Path) -> None:
    save("branched", tmp_path)
    (tmp_path / "spec.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"spec\.json"):
        bundle.load(tmp_path)


def test_a_backbone_is_never_fetched_by_its_name() -> None:
    for name in ("hf-hub:timm/resnet18.a1_in1k", "hf_hub:a/b", "local-dir:/etc", "resnet18.no_such_tag"):
        with pytest.raises(ValueError, match=r"backbone\.name"):
            build_blocks(BackboneSpec(name=name, locations=2, size=(32, 32)))
