"""Each rank's gradients -> their mean over ranks, in buckets that travel while the backward pass goes on.

As DistributedDataParallel has it (Li et al. 2020, PyTorch Distributed, Sec. 3.2), for steps that use different parts of
a network: what a data set uses is learned when it is drawn first, and a step exchanges what its data sets use, no more.
No autograd graph is searched for that, and gradients stay where they travelled, in the buckets.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 25 << 20  # as DistributedDataParallel's, from which on a bucket is full;
FIRST_BYTES = 1 << 20  # the first one is smaller, so that travel begins early
ALIGNMENT = 64  # bytes: fused optimisers read several numbers at a time
LAYOUTS = 16  # that are kept


@dataclass(kw_only=True)
class Bucket:
    """Gradients that travel together: all of them flat, each by its parameter's place, and the places still empty."""

    flat: Tensor
    views: dict[int, Tensor]
    empty: set[int] = field(default_factory=set)


class GradientAveraging:
    """Averages the gradients of parameters over ranks, in the last backward pass of each step.

    What some ranks lack counts as zero; what all lack stays away, and an optimiser passes over it. All ranks name the
    same data sets for a step. What one turns out to use beyond what is known, as under a penalty that starts late, is
    exchanged after the rest.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], world: int) -> None:
        self._parameters = [p for p in parameters if p.requires_grad][::-1]  # about as the backward pass gets to them
        self._scale = 1 / world
        self._memory = torch.zeros(
            sum(map(_room, self._parameters)), dtype=torch.uint8, device=self._parameters[0].device
        )
        self._uses: dict[str, frozenset[int]] = {}
        self._layouts: dict[tuple[frozenset[int], int], list[Bucket]] = {}
        self._expected: frozenset[int] = frozenset()
        self._used: dict[str, bytearray] = {}
        self._row, self._last = bytearray(len(self._parameters)), False
        self._queue: deque[Bucket] = deque()
        self._bucket_of: dict[int, Bucket] = {}
        self._sent: list[dist.Work] = []
        for place, parameter in enumerate(self._parameters):
            parameter.register_post_accumulate_grad_hook(partial(self._accumulated, place))

    def begin(self, datasets: Collection[str]) -> None:
        """Begin a step for which the ranks together draw these data sets."""
        self._used = {name: bytearray(len(self._parameters)) for name in sorted(datasets)}
        # With a new one among them nothing travels before all ranks know what it uses.
        known = all(name in self._uses for name in self._used)
        self._expected = frozenset[int]().union(*(self._uses[name] for name in self._used)) if known else frozenset()
        self._await(self._expected, 0)

    def draw(self, dataset: str, *, last: bool) -> None:
        """Tell whose batch the next backward pass is for, and whether it is this rank's last one of the step."""
        self._row, self._last = self._used[dataset], last

    def finish(self) -> None:
        """End a step: every parameter that a rank has used has the mean gradient, on all ranks."""
        self._send_rest()
        used = self._agree()
        if late := used - self._expected:
            self._await(late, sum(_room(self._parameters[place]) for place in self._expected))
            self._send_rest()
        for work in self._sent:
            work.wait()
        self._sent, self._last = [], False
        for place in self._expected - used:
            self._parameters[place].grad = None

    def _accumulated(self, place: int, _: Tensor) -> None:
        self._row[place] = 1
        if self._last and place in self._bucket_of:
            self._fill(place)

    def _await(self, places: frozenset[int], start: int) -> None:
        """Have the buckets of some parameters filled, which lie in memory from a byte on."""
        if (places, start) not in self._layouts:
            kept = list(self._layouts.items())[1 - LAYOUTS :]
            self._layouts = dict([*kept, ((places, start), self._lay_out(places, start))])
        self._queue.extend(self._layouts[places, start])
        self._bucket_of = {place: bucket for bucket in self._queue for place in bucket.views}
        for bucket in self._queue:
            bucket.empty = set(bucket.views)

    def _fill(self, place: int) -> None:
        """Move a gradient to its bucket; full buckets leave in their order, which is that of all ranks."""
        parameter, bucket = self._parameters[place], self._bucket_of[place]
        view = bucket.views[place]
        if parameter.grad is None:
            view.zero_()
        else:
            torch.mul(parameter.grad, self._scale, out=view)
        parameter.grad = view
        bucket.empty.remove(place)
        while self._queue and not self._queue[0].empty:
            work = dist.all_reduce(self._queue.popleft().flat, async_op=True)
            assert work is not None
            self._sent.append(work)

    def _send_rest(self) -> None:
        for bucket in list(self._queue):
            for place in sorted(bucket.empty):
                self._fill(place)

    def _agree(self) -> frozenset[int]:
        """What any rank has used in the step; remembered by data set."""
        flags = torch.frombuffer(bytearray().join(self._used.values()), dtype=torch.uint8).to(self._memory.device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        rows = [frozenset(row.nonzero().flatten().tolist()) for row in flags.cpu().view(len(self._used), -1)]
        for name, row in zip(self._used, rows, strict=True):
            self._uses[name] = self._uses.get(name, frozenset()) | row
        return frozenset[int]().union(*rows)

    def _lay_out(self, places: frozenset[int], start: int) -> list[Bucket]:
        """Map parameters to buckets, each of one type."""
        groups: list[list[int]] = []
        size, dtype = 0, None
        for place in sorted(places):
            parameter = self._parameters[place]
            full = size >= (BUCKET_BYTES if len(groups) > 1 else min(FIRST_BYTES, BUCKET_BYTES))
            if not groups or full or parameter.dtype != dtype:
                groups.append([])
                size, dtype = 0, parameter.dtype
            size += _room(parameter)
            groups[-1].append(place)
        buckets = []
        for group in groups:
            buckets.append(self._bucket(group, start))
            start += buckets[-1].flat.nbytes
        return buckets

    def _bucket(self, places: list[int], start: int) -> Bucket:
        parameters = [self._parameters[place] for place in places]
        end = start + sum(map(_room, parameters))
        flat, views, offset = self._memory[start:end].view(parameters[0].dtype), {}, start
        for place, parameter in zip(places, parameters, strict=True):
            dense = torch.empty_like(parameter, device="meta")  # the strides of a gradient: the parameter's
            views[place] = flat.as_strided(dense.size(), dense.stride(), offset // parameter.itemsize)
            offset += _room(parameter)
        return Bucket(flat=flat, views=views)


def start_alike(module: nn.Module) -> None:
    """Give all ranks rank 0's tensors: first weights drawn on another kind of machine may differ in the last digit."""
    for tensor in (*module.parameters(), *module.buffers()):
        dist.broadcast(tensor.detach(), 0)


def _room(parameter: nn.Parameter) -> int:
    """The bytes that a gradient takes in memory."""
    return -(-parameter.nbytes // ALIGNMENT) * ALIGNMENT
