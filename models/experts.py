"""An MLP as a mixture of experts, with one router per data set (MTHL, Sec. 3.1).

T tokens, C channels, H hidden, E experts, K experts per token.
"""

from collections.abc import Mapping, Sequence

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from models.expert_dispatch import mix_experts
from models.mutual_information import mutual_information_loss
from models.rank_noise import Gaussian

TIE = 1e-30  # so little decides between experts of one score, as an undecided router gives them: the first, anywhere


class Router(nn.Module):
    """Tokens -> the experts of each and their gates: the K greatest of softmax(x W), as they are (MTHL, Eq. 2).

    The softmax is over all of the router's experts and in float32. With a `width` of 2 the router has a second output
    per expert, the scale of a noise added to the scores while training (Shazeer et al. 2017, Eq. 4).
    """

    def __init__(self, dim: int, experts: int, top_k: int, width: int = 1) -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            raise ValueError(f"top_k {top_k}: a router chooses at least 1 and at most all of its {experts} experts")
        self.top_k, self.experts = top_k, experts
        self.weight = nn.Parameter(torch.empty(experts * width, dim))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.noise = Gaussian()

    def forward(self, x_TC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map tokens to gates [T, K], the places of the experts chosen [T, K], and the probabilities of all [T, E]."""
        with torch.autocast(x_TC.device.type, enabled=False):
            scores = F.linear(x_TC.float(), self.weight.float())
            scores_TE, noise_TE = scores[:, : self.experts], scores[:, self.experts :]
            if self.training and noise_TE.shape[1]:
                scores_TE = scores_TE + self.noise(F.softplus(noise_TE))
            probs_TE = scores_TE.softmax(-1)
            place_E = torch.arange(self.experts, device=x_TC.device)
            choice_TK = (scores_TE.detach() - TIE * place_E).topk(self.top_k, dim=-1, sorted=False).indices
        return probs_TE.gather(1, choice_TK), choice_TK, probs_TE


class Adapter(nn.Module):
    """A bottleneck beside which its input passes unchanged (Houlsby et al. 2019); at first it adds nothing."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x)))


class Estimates(nn.Module):
    """The running estimates B(i|j) of a layer, one buffer [E] a data set: at first every expert is as likely."""

    def __init__(self, datasets: Sequence[str], experts: int) -> None:
        super().__init__()
        self.names = tuple(dict.fromkeys(datasets))
        for name in self.names:
            self.register_buffer(key(name), torch.full((experts,), 1 / experts))

    def stacked(self) -> Tensor:
        """B(i|j) of all data sets [M, E]."""
        return torch.stack([self.get_buffer(key(name)) for name in self.names])


class MoEMlp(nn.Module):
    """Tokens [..., C] of one data set -> the gated sum of K experts, each a small MLP (MTHL, Eq. 1).

    `routes` gives for each data set the numbers of the experts that its router may choose, and how many of them a token
    gets. `dataset` names the one whose tokens come next. `remembered` data sets have an estimate and no router.
    """

    tally_ME: Tensor

    def __init__(
        self,
        dim: int,
        hidden: int,
        routes: Mapping[str, tuple[Sequence[int], int]],
        *,
        bias: bool = True,
        router_width: int = 1,
        remembered: Sequence[str] = (),
        adapter: int = 0,
    ) -> None:
        super().__init__()
        self.numbers = {name: tuple(chosen) for name, (chosen, _) in routes.items()}
        self.names = tuple(str(number) for number in sorted({n for chosen in self.numbers.values() for n in chosen}))
        self.experts = nn.ModuleDict({name: _expert(dim, hidden, bias) for name in self.names})
        self.routers = nn.ModuleDict(
            {key(name): Router(dim, len(chosen), top_k, router_width) for name, (chosen, top_k) in routes.items()}
        )
        self.adapter = Adapter(dim, adapter) if adapter else nn.Identity()
        self.estimates = Estimates([*remembered, *routes], len(self.names))
        self.register_buffer("tally_ME", torch.zeros(len(routes), len(self.names) + 1), persistent=False)
        self.dataset = next(iter(routes))
        self.probs_E: Tensor | None = None  # of a step's last batch, for the penalty

    def forward(self, x: Tensor) -> Tensor:
        x_TC = x.reshape(-1, x.shape[-1])
        gate_TK, choice_TK, probs_TE = self.routers[key(self.dataset)](x_TC)
        if self.training:
            self.probs_E = self._in_place(probs_TE.mean(0))
            self._count(self.probs_E.detach(), len(x_TC))
        experts = [self.expert(number) for number in self.numbers[self.dataset]]
        y_TC = mix_experts(
            x_TC,
            gate_TK,
            choice_TK,
            [expert.fc1.weight for expert in experts],
            [expert.fc2.weight for expert in experts],
            [biases for expert in experts if (biases := _biases(expert))],
        )
        return self.adapter(y_TC.view(x.shape))

    def expert(self, number: int) -> Mlp:
        expert = self.experts[str(number)]
        assert isinstance(expert, Mlp)
        return expert

    def router(self, dataset: str) -> Router:
        router = self.routers[key(dataset)]
        assert isinstance(router, Router)
        return router

    def penalty(self, dataset: str) -> Tensor:
        """Map the last training batch, one of this data set, to its part of -I(expert; data set) (MTHL, Eq. 5)."""
        assert self.probs_E is not None, "a penalty follows a training batch"
        return mutual_information_loss(self.probs_E, self.estimates.stacked(), self.estimates.names.index(dataset))

    @torch.no_grad()
    def update(self, tally_ME: Tensor, momentum: float) -> None:
        """Take what a step gave each data set's experts, over all ranks, into the estimates; begin the next step."""
        counts_M = tally_ME[:, -1:]
        for name, row, count in zip(self.numbers, tally_ME[:, :-1] / counts_M.clamp(min=1), counts_M, strict=True):
            estimate = self.estimates.get_buffer(key(name))
            estimate.lerp_(row, (1 - momentum) * (count[0] > 0))
        self.tally_ME.zero_()
        self.probs_E = None

    def _count(self, probs_E: Tensor, tokens: int) -> None:
        row = self.tally_ME[list(self.numbers).index(self.dataset)]
        row[:-1] += probs_E * tokens
        row[-1] += tokens

    def _in_place(self, probs: Tensor) -> Tensor:
        """Map the probabilities of a router's experts to those of all the layer's; 0 for those that it hasn't."""
        places = [self.names.index(str(number)) for number in self.numbers[self.dataset]]
        if places == list(range(len(self.names))):
            return probs
        return probs.new_zeros(len(self.names)).index_copy(0, torch.tensor(places, device=probs.device), probs)


def key(dataset: str) -> str:
    """Map a data set's name to one that a module may bear."""
    return "on_" + dataset.replace("%", "%25").replace(".", "%2E")


def _biases(expert: Mlp) -> tuple[Tensor, Tensor] | None:
    one, two = expert.fc1.bias, expert.fc2.bias
    return None if one is None or two is None else (one, two)


def _expert(dim: int, hidden: int, bias: bool) -> Mlp:
    """First weights as timm's transformers draw them."""
    expert = Mlp(dim, hidden, bias=bias)
    for layer in (expert.fc1, expert.fc2):
        assert isinstance(layer, nn.Linear)
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return expert
