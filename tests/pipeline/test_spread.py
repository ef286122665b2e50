"""Parts of a data set made by tasks of a real Ray cluster on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import shard_writing
from pipeline.datasets import BadExample, Source
from pipeline.machine import Machine
from pipeline.preparing import declare, prepare_dataset
from pipeline.ray_environment import prepare_environment
from pipeline.runner import spread
from tests.pipeline.cases import settings
from tests.pipeline.number_source import Numbers, rows
from tests.pipeline.trouble_source import Deadly, loaded, plus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    # Ray's own: sockets and files of the cluster, its plans for later versions, what its imports raise
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:ray"),
]
CONFIG = settings({"images": None})


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    prepare_environment(Machine())  # what ray reads when it is imported
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"WITHOUT_TORCH": "1"}})
    yield
    ray.shutdown()


def store(folder: Path, source: Source, machine: Machine) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writing, "ROWS", 32)
        prepare_dataset(declare("tiny", CONFIG, source), source, CONFIG, machine, folder, lambda _: None)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cluster_stores_what_one_process_does(tmp_path: Path) -> None:
    """A worker that dies is replaced; none imports torch, with which a row would be bad."""
    here = store(tmp_path / "here", Numbers(rows(200)), Machine(prepare_workers=1))
    source = Deadly(rows(200), tmp_path / "log")
    source.times = 1
    assert store(tmp_path / "there", source, Machine(address="auto", max_failures=1)) == here
    assert loaded(tmp_path / "log").count(source.killer) == 2


def test_a_cluster_that_gives_up_says_so(tmp_path: Path) -> None:
    source = Deadly(rows(40), tmp_path / "log")
    source.killer, source.times = "10", 99
    with pytest.raises(ValueError, match=r"the cluster gave up; the same command goes on from here: .* died"):
        store(tmp_path, source, Machine(address="auto", max_failures=0))


def test_no_more_than_so_many_are_on_their_way() -> None:
    """An item is taken up when another has come back; errors are those that the function raised."""
    asked: list[int] = []

    class Items(list[int]):
        def __iter__(self) -> Iterator[int]:
            for item in list.__iter__(self):
                asked.append(item)
                yield item

    seen = {}
    for index, result in spread(plus, 100, Items(range(9)), Machine(address="auto", prepare_workers=2)):
        seen[index] = result
        assert len(asked) <= len(seen) + 2
    assert seen == {index: 100 + index for index in range(9)}
    with pytest.raises(BadExample, match="a sum of 0"):
        list(spread(plus, -7, range(9), Machine(address="auto")))
