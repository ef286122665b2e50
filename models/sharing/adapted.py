"""One task on a frozen base network, adapted in one of the ways of `models.adaptation`: the baselines of TAPS.

D locations, B batch, C channels, H W height and width.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from models.adaptation import ADAPTATIONS
from models.backbone import Block, build_blocks, feature_shapes
from models.gating import is_norm
from models.sharing.base import SharedModel
from models.spec import ModelSpec


class AdaptedModel(SharedModel):
    """A base network that is frozen but for what one task adapts, and that task's head (TAPS, Sec. 4.1).

    Settings: `method`, a key of ADAPTATIONS, and those of the method. At the start the network equals the base.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        if len(spec.tasks) != 1:
            raise ValueError(f"an adapted network is for one task, not {len(spec.tasks)}: {', '.join(spec.task_names)}")
        settings = dict(spec.settings)
        method = settings.pop("method", None)
        if method not in ADAPTATIONS:
            raise ValueError(f"method {method!r} is no way to adapt a network; use one of {', '.join(ADAPTATIONS)}")
        self.adaptation = ADAPTATIONS[method]
        blocks = build_blocks(spec.backbone)
        self.shapes = feature_shapes(blocks, spec.backbone.size)
        self.blocks = nn.ModuleList(blocks).requires_grad_(False)
        plain = self.blocks.state_dict(keep_vars=True)
        self.adaptation.apply(self.blocks, settings)
        adapted = {id(tensor): name for name, tensor in self.blocks.state_dict(keep_vars=True).items()}
        # Wrapping a layer renames its tensors: base name -> name in here.
        self.renamed = {name: adapted[id(tensor)] for name, tensor in plain.items()}
        for norm in self._norms():
            norm.requires_grad_(self.adaptation.norms)
        self.heads = nn.ModuleList([self.build_head(spec.tasks[0].name, self.shapes)])
        self.train()

    def _norms(self) -> Iterator[nn.Module]:
        return (module for module in self.blocks.modules() if is_norm(module))

    def train(self, mode: bool = True) -> "AdaptedModel":
        """Set the mode; normalisation layers that are the base's stay in eval mode, their statistics may not move."""
        super().train(mode)
        if not self.adaptation.norms:
            for norm in self._norms():
                norm.eval()
        return self

    def no_weight_decay(self) -> set[str]:
        trained = {f"blocks.{name}" for name, weight in self.blocks.named_parameters() if weight.requires_grad}
        return set() if self.adaptation.decays else trained

    def paths(self, images: Tensor, names: Sequence[str]) -> dict[str, list[Tensor]]:
        assert set(names) <= set(self.spec.task_names)
        state, maps = images, []
        for block in self.blocks:
            assert isinstance(block, Block)
            state = block(state)
            maps.append(block.as_map(state))
        return dict.fromkeys(names, maps)

    def start_from(self, members: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take the base from the one branch of a branched network, whatever its tasks were; what is added stays."""
        (state,) = members.values()
        base = {}
        for name, here in self.renamed.items():
            location, _, path = name.partition(".")
            base[here] = state[f"blocks.{location}.0.{path}"]
        self.blocks.load_state_dict(self.blocks.state_dict() | base)

    def only(self, task: str) -> "AdaptedModel":
        assert task in self.spec.task_names
        return self

    def own_params(self) -> int:
        """Trained parameters of the backbone without normalisation layers: "active" in the paper's count."""
        norms = {id(weight) for norm in self._norms() for weight in norm.parameters()}
        return sum(
            weight.numel() for weight in self.blocks.parameters() if weight.requires_grad and id(weight) not in norms
        )

    def own_bits(self) -> int:
        """What the task takes on disk beside the base: layers at the method's bits a weight, the rest as stored."""
        norms = list(self._norms()) if self.adaptation.norms else []
        rest = [tensor for module in (*norms, self.heads) for tensor in module.state_dict().values()]
        return round(self.own_params() * self.adaptation.bits) + sum(8 * tensor.nbytes for tensor in rest)
