"""How time and memory grow with tasks, images, experts.    python -m benchmarks.scaling    (about 5 minutes)

Each line fits one exponent to a few sizes, measured in turn; of what grows exponentially, the factor for one more.
Beside it stands what the algorithm gives. Small terms that don't grow pull an exponent below it, caches that overflow
push it above. One thread, CPU time.
"""

from collections.abc import Iterator
from functools import partial
from math import comb, log

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from benchmarks.growth import exponent, memory_growth, peaks, time_factor, time_growth
from benchmarks.lines import Line, show
from benchmarks.networks import classifiers
from benchmarks.trees import KINDS, affinities, front
from models.accounting import count_flops
from models.experts import MoEMlp
from models.rsa import affinity, rdm
from models.sharing.branched import BranchedModel
from models.sharing.taps import TapsModel

BACKBONE, SIZE, BATCH = "resnet18", 64, 8
MANY = (5, 10, 20, 40)  # tasks
PER_BRANCH = (40, 20, 10, 5)  # tasks of a branch at each location
CHANNELS = 192
DATASET = "photos"
TABLES = "at most a little above 3: tables over subsets of subsets of tasks"
BRANCH_COUNTS = f"at most {log(comb(15, 6) / comb(11, 2)) / log(3):.1f}: as many searches as numbers of branches"


def lines() -> Iterator[Line]:
    torch.set_num_threads(1)
    with threadpool_limits(1):  # numpy's products have threads of their own
        yield from _rsa()
    yield from _searches()
    yield from _taps()
    yield _branched()
    yield from _experts()


def _rsa() -> Iterator[Line]:
    images, numbers, tasks = (250, 500, 1000, 2000), (20_000, 40_000, 80_000), (5, 10, 20, 40)
    square = "2, and 1 for reading them"
    ways = {k: partial(rdm, torch.rand(k, 20_000)) for k in images}
    yield time_growth("time of an RDM over images, 20,000 features", square, ways, 2)
    yield memory_growth("peak memory of it, by torch's profiler", "1 to 2: K × chunk and K²", peaks(ways))
    ways = {f: partial(rdm, torch.rand(500, f)) for f in numbers}
    yield time_growth("time of an RDM over features, 500 images", "1", ways)
    yield memory_growth("peak memory of it, by torch's profiler", "0: they come in chunks", peaks(ways))
    ways = {t: partial(affinity, _rdms(t, 500)) for t in tasks}
    yield time_growth("time of affinities over tasks, 500 images", "1 for ranks, 2 for pairs", ways)
    ways = {k: partial(affinity, _rdms(5, k)) for k in images}
    yield time_growth("time of affinities over images, 5 tasks", "2 and a little: K² log K", ways)


def _searches() -> Iterator[Line]:
    for kind in KINDS:
        ways = {tasks: partial(front, affinities(kind, tasks, 4), "exact") for tasks in (7, 9, 11, 13)}
        yield time_factor(f"time of the exact search over tasks, 4 locations, {kind}", TABLES, ways, 2)
    kind = "structured"
    exact = {locations: partial(front, affinities(kind, 10, locations), "exact") for locations in (2, 3, 4, 5, 6)}
    yield time_growth("time of the exact search over locations, 10 tasks", BRANCH_COUNTS, exact)
    beam = {tasks: partial(front, affinities(kind, tasks, 3), "beam") for tasks in (10, 20, 40)}
    yield time_growth(
        "time of the beam search over tasks, 3 locations", "2 and more: T² for each of more trees", beam, 1
    )
    beam = {locations: partial(front, affinities(kind, 10, locations), "beam") for locations in (2, 3, 4, 5, 6)}
    yield time_growth("time of the beam search over locations, 10 tasks", "at most 2: D² for each tree", beam, 1)


def _taps() -> Iterator[Line]:
    one = _taps_network(1)
    images = torch.rand(BATCH, 3, SIZE, SIZE)
    shares = {percent: partial(_gated_step, one, percent, images) for percent in (25, 50, 75, 100)}
    yield time_growth("time of a TAPS step over the open gates in percent", "0", shares, 5)
    joint = {tasks: partial(_step, _taps_network(tasks, joint=True), images) for tasks in (2, 4, 7, 10)}
    yield time_growth("time of a joint TAPS step over tasks", "1", joint)
    yield memory_growth("memory of it beyond weights, by torch's profiler", "1", peaks(joint))
    held = {tasks: _held(tasks) for tasks in MANY}
    yield memory_growth("memory of a TAPS bundle over tasks beyond its base, half of the layers open", "1", held)


def _branched() -> Line:
    images, ways, flops = torch.rand(BATCH, 3, 2 * SIZE, 2 * SIZE), {}, {}
    for tasks in MANY:
        groups = tuple(tuple(task // most for task in range(tasks)) for most in PER_BRANCH)
        network = BranchedModel(classifiers("branched", BACKBONE, 2 * SIZE, _names(tasks), groups=groups)).eval()
        ways[tasks], flops[tasks] = partial(_predict, network, images), count_flops(network, images)
    expected = f"{exponent(flops):.3f}, that of its FLOPs"
    return time_growth(f"time of a tree in inference over tasks, {BACKBONE} {2 * SIZE} px", expected, ways)


def _experts() -> Iterator[Line]:
    tokens, top_k = 1568, 4
    x = torch.randn(tokens, CHANNELS, requires_grad=True)
    ways = {experts: partial(_mix, _mixture(experts, top_k), x) for experts in (4, 8, 16, 32, 64)}
    where = f"{tokens:,} × {CHANNELS}, top {top_k}"
    yield time_growth(f"time of a layer of experts over experts, {where}", "0, and their weights' bytes", ways)
    layer = _mixture(16, top_k)
    inputs = {size: torch.randn(size, CHANNELS, requires_grad=True) for size in (784, 1568, 3136, 6272)}
    ways = {size: partial(_mix, layer, x) for size, x in inputs.items()}
    yield time_growth(f"time of a layer of 16 experts over tokens, top {top_k}", "1 beside weights' gradients", ways)
    yield memory_growth("peak memory of it, by torch's profiler", "1 beside weights' gradients", peaks(ways))
    ways = {chosen: partial(_mix, _mixture(16, chosen), x) for chosen in (1, 2, 4, 8)}
    yield time_growth(
        f"time of a layer of 16 experts over the top k, {tokens:,} tokens", "1 beside weights' gradients", ways
    )


def _rdms(tasks: int, images: int) -> Tensor:
    """RDMs [T, 1, K, K] of features drawn at random."""
    return torch.stack([rdm(torch.rand(images, 64)) for _ in range(tasks)])[:, None]


def _names(tasks: int) -> tuple[str, ...]:
    return tuple(f"task{number}" for number in range(tasks))


def _taps_network(tasks: int, *, joint: bool = False) -> TapsModel:
    return TapsModel(classifiers("taps", BACKBONE, SIZE, _names(tasks), settings=(("joint", joint),)))


def _gated_step(network: TapsModel, percent: int, images: Tensor) -> None:
    scores = network.of().scores
    with torch.no_grad():
        scores.fill_(0.15)[torch.arange(len(scores)) * 100 >= percent * len(scores)] = 0.05
    _step(network, images)


def _step(network: TapsModel, images: Tensor) -> None:
    """Forward, backward and plain descent for all tasks on a batch."""
    labels = torch.arange(len(images)) % 10
    outputs = network.train()(images)
    loss = torch.stack([functional.cross_entropy(output, labels) for output in outputs.values()]).sum()
    (loss + network.penalty(list(outputs))).backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= 1e-5 * parameter.grad
                parameter.grad = None


@torch.no_grad()
def _held(tasks: int) -> int:
    """Bytes of the distinct tensors that a loaded bundle holds beyond its base."""
    network = _taps_network(tasks)
    for name in network.spec.task_names:
        network.of(name).scores[::2] = 0.0
    network.drop_closed()
    found = {tensor.untyped_storage().data_ptr(): tensor for tensor in network.state_dict().values()}
    base = {tensor.untyped_storage().data_ptr() for tensor in network.base.state_dict().values()}
    return sum(tensor.untyped_storage().nbytes() for place, tensor in found.items() if place not in base)


@torch.inference_mode()
def _predict(network: BranchedModel, images: Tensor) -> None:
    network(images)


def _mixture(experts: int, top_k: int) -> MoEMlp:
    layer = MoEMlp(CHANNELS, CHANNELS, {DATASET: (range(experts), top_k)})
    torch.nn.init.normal_(layer.router(DATASET).weight)
    return layer


def _mix(layer: MoEMlp, x: Tensor) -> None:
    layer(x).backward(torch.ones_like(x))
    layer.zero_grad()
    x.grad = None


if __name__ == "__main__":
    show(lines())
