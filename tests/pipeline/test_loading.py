"""What was stored is read back; batches are the same whatever the ranks, the loader's workers and interruptions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.spec import IGNORE, Column
from pipeline import draws
from pipeline.config import Augment
from pipeline.encoding import LAYOUTS, encode, encode_image, image_type
from pipeline.loading import Batch, Feed, Split, in_order
from tests.pipeline.cases import DECODING
from tests.pipeline.number_source import COLUMNS, SIZE, labels_of

pytestmark = pytest.mark.filterwarnings(DECODING)

STILL = Augment(flip=0.0, crop=1.0)
LIVELY = Augment(flip=0.5, crop=0.5)


def write(path: Path, records: Sequence[dict[str, Any]], columns: Mapping[str, Column], kept: str) -> Path:
    """A shard of several record batches."""
    labels = [(name, LAYOUTS[column.layout].arrow) for name, column in columns.items()]
    schema = pa.schema([("id", pa.string()), ("image", image_type(kept, SIZE)), *labels])
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_table(pa.Table.from_pylist(list(records), schema=schema), max_chunksize=4)
    return path


def store(folder: Path, kept: str, count: int, first: int = 0, name: str = "numbers") -> Split:
    """Rows first..first+count-1 in two shards; image i is all grey of level i."""
    paths = []
    for part, indices in enumerate(np.array_split(np.arange(first, first + count), 2)):
        records = [
            {"id": str(i), "image": encode_image(np.full((*SIZE, 3), i % 256, dtype=np.uint8), kept, 95)}
            | {key: encode(key, column, labels_of(int(i))[key]) for key, column in COLUMNS.items()}
            for i in indices
        ]
        paths.append(write(folder / f"{name}-{part}.arrow", records, COLUMNS, kept))
    return Split(dataset=name, paths=paths, size=SIZE, columns=COLUMNS)


@pytest.fixture(scope="module", params=["jpeg", "raw"])
def kept(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def split(kept: str, tmp_path_factory: pytest.TempPathFactory) -> Split:
    return store(tmp_path_factory.mktemp("numbers"), kept, 30)


@pytest.fixture(scope="module")
def other(kept: str, tmp_path_factory: pytest.TempPathFactory) -> Split:
    return store(tmp_path_factory.mktemp("others"), kept, 17, first=100, name="others")


def feed(*splits: Split, **changes: Any) -> Feed:
    count = len(splits)
    fields = {"splits": splits, "weights": [1.0] * count, "batches": [6] * count, "augment": LIVELY, "seed": 3}
    return Feed(**{**fields, **changes})


def assert_same(left: Batch, right: Batch) -> None:
    assert left.dataset == right.dataset
    assert torch.equal(left.images, right.images)
    assert left.labels.keys() == right.labels.keys()
    for name, raw in left.labels.items():
        assert raw.dtype == right.labels[name].dtype
        assert torch.equal(raw, right.labels[name]), name


def levels(batch: Batch) -> list[int]:
    return batch.images.float().mean((1, 2, 3)).round().int().tolist()


def test_every_layout_is_read_back(split: Split) -> None:
    """The stored value where there is one, the layout's own sign of "unlabelled" where there is none."""
    batch = split.read(range(30))
    seen = Counter[str]()
    for i in range(30):
        expected = labels_of(i)
        got = {name: raw[i].numpy() for name, raw in batch.labels.items()}
        seen.update(name for name, value in expected.items() if value is None)
        for name, value in expected.items():
            _CHECKS[name](got[name], value)
    assert set(seen) == set(COLUMNS), "each column must have been null somewhere"
    types = {name: raw.dtype for name, raw in batch.labels.items()}
    assert types["kind"] == torch.int64
    assert types["flags"] == torch.int8
    assert types["mask"] == types["ids"] == batch.images.dtype == torch.uint8
    assert types["field"] == types["points"] == types["boxes"] == torch.float32


def _map(got: np.ndarray, value: np.ndarray | None) -> None:
    np.testing.assert_array_equal(got, np.full(SIZE, IGNORE) if value is None else value)


def _field(got: np.ndarray, value: np.ndarray | None) -> None:
    if value is None:
        assert (got == 0).all()
    else:
        np.testing.assert_allclose(got, value, atol=0.5 * COLUMNS["field"].scale * 1.001)


def _listed(got: np.ndarray, value: np.ndarray | None) -> None:
    if value is None:
        assert (got[:, -1] == -2).all()
        return
    np.testing.assert_array_equal(got[: len(value)], value)
    assert (got[len(value) :, -1] == -1).all()


_CHECKS = {
    "kind": lambda got, value: np.testing.assert_equal(got, -1 if value is None else value),
    "flags": lambda got, value: np.testing.assert_array_equal(got, [-1] * 3 if value is None else value),
    "mask": _map,
    "ids": _map,
    "field": _field,
    "points": _listed,
    "boxes": _listed,
}


def test_normals_are_read_back(tmp_path: Path) -> None:
    """Unit vectors within half a grey level of 127, the axes exactly; zero where a pixel or a whole image has none."""
    normals = np.random.default_rng(0).standard_normal((*SIZE, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[:2], normals[2, :6] = 0, np.concatenate([np.eye(3), -np.eye(3)])
    column = Column(layout="normals")
    image = encode_image(np.zeros((*SIZE, 3), dtype=np.uint8), "jpeg", 95)
    cells = [encode("normals", column, normals), None]
    records = [{"id": str(i), "image": image, "normals": cell} for i, cell in enumerate(cells)]
    path = write(tmp_path / "part.arrow", records, {"normals": column}, "jpeg")
    stored = Split(dataset="n", paths=[path], size=SIZE, columns={"normals": column})
    read = stored.read([0, 1]).labels["normals"]
    assert (read.shape, read.dtype) == ((2, 3, *SIZE), torch.float32)
    assert not read[1].any()
    got = read[0].permute(1, 2, 0).numpy()
    assert not got[:2].any()
    np.testing.assert_array_equal(got[2, :6], normals[2, :6])
    np.testing.assert_allclose(np.linalg.norm(got[2:], axis=-1), 1, atol=1e-6)
    assert np.degrees(np.arccos((got[2:] * normals[2:]).sum(-1).clip(-1, 1))).max() < 0.5


def test_images_are_read_back(split: Split) -> None:
    images = split.read(range(30)).images
    assert images.shape == (30, 3, *SIZE)
    assert (images.int() - torch.arange(30).view(-1, 1, 1, 1)).abs().max() <= 1


def test_raw_images_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, *SIZE, 3), dtype=np.uint8)
    records = [{"id": str(i), "image": encode_image(image, "raw", 95)} for i, image in enumerate(images)]
    stored = Split(dataset="n", paths=[write(tmp_path / "part.arrow", records, {}, "raw")], size=SIZE, columns={})
    assert torch.equal(stored.read([8, 0, 3]).images, torch.from_numpy(images[[8, 0, 3]]).permute(0, 3, 1, 2))
    assert not stored.decoded, "they lie in the memory map already"


def test_more_cells_than_32_bits_count() -> None:
    """A column of over 2 GiB is read row by row; its parts are never joined."""
    columns = {name: COLUMNS[name] for name in ("kind", "points")}
    greys = [np.full((*SIZE, 3), 8 * i, dtype=np.uint8) for i in range(16)]
    part = pa.table(
        {
            "id": [str(i) for i in range(16)],
            "image": [encode_image(grey, "jpeg", 95) + bytes(1 << 20) for grey in greys],
            "kind": pa.array(range(16), pa.int32()),
            "points": pa.array([[1.0, 2.0, 0.0] * (i % 5) for i in range(16)], pa.list_(pa.float32())),
        }
    )
    large = Split(dataset="n", paths=[], size=SIZE, columns=columns)
    large.table = pa.concat_tables([part] * 160)
    assert large.table["image"].nbytes > 2 << 30
    rows = [0, 16 * 160 - 1, 17, 16 * 140 + 5]
    batch = large.read(rows)
    assert levels(batch) == pytest.approx([8 * (row % 16) for row in rows], abs=1)
    assert batch.labels["kind"].tolist() == [row % 16 for row in rows]
    assert batch.labels["points"].shape == (4, 4, 3)


@pytest.mark.parametrize("rows", [[0], [29, 0, 5, 5], list(range(14, 17)), list(range(30))])
def test_a_split_too_large_for_memory_gives_the_same(split: Split, rows: list[int]) -> None:
    streamed = Split(dataset=split.dataset, paths=split.paths, size=SIZE, columns=COLUMNS, cache_bytes=0)
    assert_same(streamed.read(rows), split.read(rows))
    assert not streamed.decoded


@pytest.mark.parametrize("world", [2, 3, 6])
def test_ranks_share_out_the_global_batch(split: Split, other: Split, world: int) -> None:
    whole = feed(split, other)
    parts = [feed(split, other, rank=rank, world=world) for rank in range(world)]
    for step in range(12):
        expected, got = whole[step], [part[step] for part in parts]
        for rank, batch in enumerate(got):
            mine = slice(rank, None, world)
            labels = {name: raw[mine] for name, raw in expected.labels.items()}
            assert_same(batch, Batch(dataset=expected.dataset, images=expected.images[mine], labels=labels))


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_the_steps_in_order_from_anywhere(split: Split, other: Split, workers: int) -> None:
    made = feed(split, other)
    for first, last in ((0, 5), (3, 9)):
        batches = list(made.loader(first, last, workers=workers, pin=False))
        assert len(batches) == last - first
        for step, batch in zip(range(first, last), batches, strict=True):
            assert_same(batch, feed(split, other)[step])


@pytest.mark.parametrize("count", [1, 2])
def test_a_walk_visits_a_row_at_most_once(split: Split, other: Split, count: int) -> None:
    splits = (split, other)[:count]
    made = feed(*splits, augment=STILL)
    visits: dict[str, list[int]] = {item.dataset: [] for item in splits}
    for step in range(3 * made.steps_per_epoch):
        batch = made[step]
        visits[batch.dataset] += levels(batch)
    for item in splits:
        walk = len(item) // 6 * 6
        walks = [visits[item.dataset][start : start + walk] for start in range(0, len(visits[item.dataset]), walk)]
        assert len(walks) > 1
        assert all(len(set(rows)) == len(rows) for rows in walks)
        assert walks[0] != walks[1], "each walk has its own order"


def test_an_epoch_is_as_many_batches_as_the_sets_hold(split: Split, other: Split) -> None:
    assert feed(split, other).steps_per_epoch == 30 // 6 + 17 // 6


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (0.02, 0.18)])
def test_sets_are_drawn_by_weight(split: Split, other: Split, weights: Sequence[float]) -> None:
    made = feed(split, other, weights=weights)
    steps = 2 * draws.BLOCK
    share = sum(made.order.dataset(step)[0] == 0 for step in range(steps)) / steps
    assert share == pytest.approx(weights[0] / sum(weights), abs=0.02)


def test_draws_count_the_turns_of_each_set_across_blocks(split: Split, other: Split) -> None:
    made, turns = feed(split, other), [0, 0]
    for step in range(draws.BLOCK + 50):
        which, turn = made.order.dataset(step)
        assert turn == turns[which]
        turns[which] += 1


def test_each_set_has_its_own_batch(split: Split, other: Split) -> None:
    made = feed(split, other, batches=[4, 2])
    assert made.steps_per_epoch == 30 // 4 + 17 // 2
    seen = {(batch.dataset, len(batch)) for batch in (made[number] for number in range(12))}
    assert seen == {("numbers", 4), ("others", 2)}


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_out_the_draws_of_a_step(split: Split, other: Split, world: int) -> None:
    """Each draw is one rank's alone, whole, and the same whoever takes it."""
    fields: dict[str, Any] = {"batches": [4, 3], "draws": 4}
    whole = feed(split, other, **fields)
    parts = [feed(split, other, **fields, rank=rank, world=world) for rank in range(world)]
    for step in (0, 1, 7):
        shares = [part.of_step(step) for part in parts]
        assert sorted(number for share in shares for number in share) == list(range(4 * step, 4 * step + 4))
        assert {len(share) for share in shares} == {4 // world}
        for part, share in zip(parts, shares, strict=True):
            taken = list(part.loader(step, step + 1, workers=0, pin=False))
            for number, batch in zip(share, taken, strict=True):
                assert_same(batch, whole[number])


@pytest.mark.parametrize("draws", [1, 2, 3, 100])
def test_an_epoch_of_several_draws_a_step_takes_as_many_batches(split: Split, other: Split, draws: int) -> None:
    made, whole = feed(split, other, batches=[4, 2], draws=draws), 30 // 4 + 17 // 2
    assert made.steps_per_epoch >= 1
    assert whole - draws < made.steps_per_epoch * draws <= max(whole, draws)


def test_workers_that_cannot_share_out_a_step(split: Split) -> None:
    with pytest.raises(ValueError, match=r"moe\.ranks 4: the 3 workers of machine\.yaml"):
        feed(split, draws=4, world=3)
    with pytest.raises(ValueError, match=r"a batch of 6 .* 7 workers of machine\.yaml: datasets\.numbers\.batch"):
        feed(split, world=7)
    feed(split, batches=[1], draws=8, world=8)


def test_seeds_differ(split: Split) -> None:
    assert any(levels(feed(split, seed=0)[step]) != levels(feed(split, seed=1)[step]) for step in range(3))


def test_fewer_images_than_a_batch(split: Split) -> None:
    with pytest.raises(ValueError, match=r"numbers: 30 .* fewer than its batch of 31; lower datasets\.numbers\.batch"):
        feed(split, batches=[31])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_evaluation_sees_every_row_once(split: Split, world: int) -> None:
    seen = [level for rank in range(world) for part in in_order(split, 7, rank, world) for level in levels(part)]
    assert Counter(seen) == Counter(range(30))
