"""Number of a draw -> its data set and rows: functions of the seed and the number alone, found without a walk to it.

M data sets.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 4096  # draws of which the data sets are chosen at once


class Draws:
    """Data sets drawn by weight (paper MTHL: two-step sampling), each walked through in fresh orders.

    What it keeps is found again from the seed: the last block of draws, how often each data set was drawn before every
    block, and each data set's last order.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self._weights_M, self._seed = torch.tensor(weights, dtype=torch.float64), seed
        self._before_M = [torch.zeros(len(weights), dtype=torch.long)]
        self._picks: tuple[int, Tensor] = (-1, torch.empty(0))
        self._orders: dict[int, tuple[tuple[int, int], Tensor]] = {}

    def dataset(self, number: int) -> tuple[int, int]:
        """Which data set a draw takes, and how often it was taken before."""
        if len(self._weights_M) == 1:
            return 0, number
        block, place = divmod(number, BLOCK)
        for passed in range(len(self._before_M) - 1, block):
            counts = torch.bincount(self._block(passed), minlength=len(self._weights_M))
            self._before_M.append(self._before_M[-1] + counts)
        picks = self._block(block)
        which = int(picks[place])
        return which, int(self._before_M[block][which] + (picks[:place] == which).sum())

    def rows(self, which: int, length: int, turn: int, count: int) -> list[int]:
        """The `count` rows of a data set of this length when it is drawn after `turn` other times."""
        walk, place = divmod(turn, length // count)
        if self._orders.get(which, (None,))[0] != (walk, length):
            order = torch.randperm(length, generator=generator(self._seed, 1, which, walk))
            self._orders[which] = ((walk, length), order)
        return self._orders[which][1][place * count : (place + 1) * count].tolist()

    def _block(self, block: int) -> Tensor:
        if self._picks[0] != block:
            source = generator(self._seed, 0, block)
            self._picks = (block, torch.multinomial(self._weights_M, BLOCK, replacement=True, generator=source))
        return self._picks[1]


def generator(*words: int) -> torch.Generator:
    """A generator for one named place in a run; nearby words give unrelated streams (splitmix64)."""
    state = 0
    for word in words:
        state = (state ^ (word + 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state & 0x7FFFFFFFFFFFFFFF)
