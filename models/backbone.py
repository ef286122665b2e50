"""A timm network cut at D locations into blocks that run one after another, so that any of them can branch.

D locations, B batch, C channels, H W height and width. A block maps what the block before it gave; the first maps
the normalised image and holds the stem. Features leave as [B, C, H, W] whatever the family works in.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import timm
import torch
from torch import Tensor, nn

import models.decathlon_resnet
import models.small_swin
import models.thin_vgg  # noqa: F401 - all add their networks to timm's
from models.spec import BackboneSpec

DILATED = "_dilated"  # the end of a ResNet's name whose last two stages keep stride 8 by dilation (Yu et al. 2017)


class Block(nn.Sequential):
    """Layers between two locations. `as_map` turns what they give into a feature map [B, C, H, W] for heads.

    `origins` maps the path of each layer in here to its name in the timm network.
    """

    def __init__(
        self, layers: Sequence[nn.Module], as_map: Callable[[Tensor], Tensor], names: Mapping[nn.Module, str]
    ) -> None:
        super().__init__(*layers)
        self.as_map = as_map
        self.origins = {path: names[module] for path, module in self.named_modules() if module in names}


def build_blocks(spec: BackboneSpec) -> list[Block]:
    """Map a backbone's spec to its D blocks; classifier and pooling are left out (paper Sec. 3: the sharable encoder).

    ValueError names the nearest timm network for an unknown name, and the families that can be cut.
    """
    net = _create(spec)
    family = type(net).__name__
    if family not in FAMILIES:
        raise ValueError(f"backbone.name {spec.name}: {family} can't be cut; families known: {', '.join(FAMILIES)}")
    if spec.dynamic and family == "VisionTransformer":
        raise ValueError(
            f"datasets.*.size: backbone {spec.name} has a position for each patch of one image size; give all data sets"
            " the same size, or take a backbone without such a table (convolutions, ConvNeXt, DaViT, Swin)"
        )
    stem, stages, tail, as_map = FAMILIES[family](net)
    if spec.locations > len(stages):
        raise ValueError(f"backbone.locations {spec.locations}: {spec.name} has {len(stages)} stages to branch at")
    # Where there are fewer locations than stages (a ViT's layers), neighbours go together, as evenly as they can.
    bounds = [round(d * len(stages) / spec.locations) for d in range(spec.locations + 1)]
    groups = [list(stages[low:high]) for low, high in pairwise(bounds)]
    groups[0] = [*stem, *groups[0]]
    groups[-1] = [*groups[-1], *tail]
    names = {module: name for name, module in net.named_modules()}
    return [Block(group, as_map, names) for group in groups]


def feature_shapes(blocks: Sequence[Block], size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Map blocks to the (C, H, W) of their feature maps for one image of `size`; nothing is trained or counted."""
    was_training = [block.training for block in blocks]
    state, shapes = torch.zeros(1, 3, *size), []
    with torch.no_grad():
        for block in blocks:
            state = block.eval()(state)
            channels, height, width = block.as_map(state).shape[1:]
            shapes.append((channels, height, width))
    for block, training in zip(blocks, was_training, strict=True):
        block.train(training)
    return shapes


def _create(spec: BackboneSpec) -> Any:
    name = spec.name.removesuffix(DILATED)
    if not timm.is_model(name) or ":" in name:  # timm would fetch "hf-hub:user/name" and run what a folder says
        close = get_close_matches(spec.name, timm.list_models(), n=3)
        raise ValueError(f"backbone.name {spec.name!r} is no timm network. Close: {', '.join(close) or 'none'}")
    try:
        return timm.create_model(name, pretrained=spec.pretrained, num_classes=0, **_sizing(spec))
    except (AssertionError, TypeError):
        if name == spec.name:
            raise
        raise ValueError(
            f"backbone.name {spec.name}: {name} can't be dilated; take a ResNet, or leave {DILATED} out"
        ) from None
    except RuntimeError as error:
        if "pretrained tag" not in str(error):
            raise
        raise ValueError(f"backbone.name {spec.name!r}: {error}") from None
    except OSError as error:
        raise ValueError(
            f"backbone.pretrained: the weights of {spec.name} are neither in the local cache nor reachable ({error});"
            " set backbone.pretrained: false, or fetch them once where there is a network"
        ) from None


def _sizing(spec: BackboneSpec) -> dict[str, Any]:
    """Families with position tables or windows must be told the image size when they are made, others the stride."""
    if spec.name.endswith(DILATED):
        return {"output_stride": 8}
    if spec.name.startswith(("vit", "deit", "test_vit")):
        return {"img_size": spec.size, "dynamic_img_size": False}
    return {"img_size": spec.size, "dynamic_img_size": spec.dynamic} if spec.name.startswith("swin") else {}


class _Tokens(nn.Module):
    """A ViT's own start: position table and class token, between the patch embedding and the first layer."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.pos_embed: nn.Parameter | None = net.pos_embed
        self.cls_token: nn.Parameter | None = net.cls_token
        self.reg_token: nn.Parameter | None = net.reg_token
        self.drop: nn.Module = net.pos_drop
        self.norm: nn.Module = net.norm_pre
        self.prefix_first = not net.no_embed_class

    def forward(self, tokens: Tensor) -> Tensor:
        prefix = [token.expand(len(tokens), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        if self.pos_embed is None:
            tokens = torch.cat([*prefix, tokens], dim=1)
        elif self.prefix_first:
            tokens = torch.cat([*prefix, tokens], dim=1) + self.pos_embed
        else:
            tokens = torch.cat([*prefix, tokens + self.pos_embed], dim=1)
        return self.norm(self.drop(tokens))


def _same(state: Tensor) -> Tensor:
    return state


def _channels_first(state: Tensor) -> Tensor:
    return state.permute(0, 3, 1, 2).contiguous()


Cut = tuple[Sequence[nn.Module], Sequence[nn.Module], Sequence[nn.Module], Callable[[Tensor], Tensor]]


def _resnet(net: Any) -> Cut:
    return [net.conv1, net.bn1, net.act1, net.maxpool], [net.layer1, net.layer2, net.layer3, net.layer4], [], _same


def _decathlon_resnet(net: Any) -> Cut:
    return [net.conv1, net.bn1], [net.layer1, net.layer2, net.layer3], [net.norm, net.act], _same


def _vgg(net: Any) -> Cut:
    layers = list(net.features)
    ends = [place + 1 for place, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    return [], [nn.Sequential(*layers[low:high]) for low, high in pairwise([0, *ends])], [], _same


def _thin_vgg(net: Any) -> Cut:
    """Every layer with weights begins a stage, as in FAFS, which decides layer by layer."""
    layers = list(net.features)
    starts = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d | nn.Sequential)]
    return [], [nn.Sequential(*layers[low:high]) for low, high in pairwise([*starts, len(layers)])], [], _same


def _densenet(net: Any) -> Cut:
    parts = dict(net.features.named_children())
    stem = [part for name, part in parts.items() if not name.startswith(("denseblock", "transition", "norm5"))]
    count = sum(name.startswith("denseblock") for name in parts)
    stages = [
        nn.Sequential(*(parts[name] for name in (f"transition{i}", f"denseblock{i + 1}") if name in parts))
        for i in range(count)
    ]
    return stem, stages, [parts["norm5"]], _same


def _efficientnet(net: Any) -> Cut:
    return [net.conv_stem, net.bn1], list(net.blocks), [net.conv_head, net.bn2], _same


def _mobilenetv3(net: Any) -> Cut:
    return [net.conv_stem, net.bn1], list(net.blocks), [], _same


def _convnext(net: Any) -> Cut:
    return [net.stem], list(net.stages), [net.norm_pre], _same


def _byobnet(net: Any) -> Cut:
    return [net.stem], list(net.stages), [net.final_conv], _same


def _davit(net: Any) -> Cut:
    return [net.stem], list(net.stages), [], _same


def _swin(net: Any) -> Cut:
    net.patch_embed.dynamic_img_pad = net.dynamic_img_size  # a size that is no multiple of the patch is filled up
    return [net.patch_embed], list(net.layers), [net.norm], _channels_first


def _vit(net: Any) -> Cut:
    height, width = net.patch_embed.grid_size
    prefix = net.num_prefix_tokens

    def as_map(tokens: Tensor) -> Tensor:
        return tokens[:, prefix:].transpose(1, 2).unflatten(2, (height, width))

    return [net.patch_embed, _Tokens(net)], list(net.blocks), [net.norm], as_map


FAMILIES: dict[str, Callable[[Any], Cut]] = {
    "ResNet": _resnet,
    "DecathlonResNet": _decathlon_resnet,
    "VGG": _vgg,
    "ThinVGG": _thin_vgg,
    "DenseNet": _densenet,
    "EfficientNet": _efficientnet,
    "MobileNetV3": _mobilenetv3,
    "ConvNeXt": _convnext,
    "ByobNet": _byobnet,
    "DaVit": _davit,
    "SwinTransformer": _swin,
    "VisionTransformer": _vit,
}
