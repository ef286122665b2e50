"""A backbone cut into blocks is the timm network that it was cut from."""

from itertools import pairwise
from typing import Any

import pytest
import timm
import torch

from models.backbone import FAMILIES, Block, build_blocks, feature_shapes
from models.spec import BackboneSpec

SMALL = [
    *("test_resnet", "test_byobnet", "test_convnext", "test_vit", "test_efficientnet"),
    *("thin_vgg16_32", "thin_vgg16_32_fc"),
]
LARGE = [
    "resnet18",
    "mobilenetv3_small_050",
    "convnext_atto",
    "efficientnet_b0",
    "densenet121",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "davit_tiny",
    "thin_vgg16_64",
    "vgg11",
    "vgg16_bn",
]
EVERY = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


def spec(name: str, locations: int = 4) -> BackboneSpec:
    return BackboneSpec(name=name, locations=locations, size=(64, 64) if "swin" not in name else (56, 56))


def test_all_families_are_tried() -> None:
    families = {type(timm.create_model(name)).__name__ for name in (*SMALL, "densenet121")}
    assert families <= set(FAMILIES)
    elsewhere = {"DecathlonResNet"}  # it has three stages: tests/models/test_decathlon_resnet.py
    assert set(FAMILIES) - families - elsewhere <= {"MobileNetV3", "SwinTransformer", "DaVit"}, "those stand in LARGE"


@pytest.mark.parametrize("name", EVERY)
def test_blocks_in_a_row_are_the_whole_network(name: str) -> None:
    """Against timm's own forward_features, from the same first weights."""
    wanted = spec(name)
    torch.manual_seed(0)
    blocks = [block.eval() for block in build_blocks(wanted)]
    torch.manual_seed(0)
    sizing: dict[str, Any] = {"img_size": wanted.size} if name.startswith(("vit", "deit", "swin", "test_vit")) else {}
    net: Any = timm.create_model(name, pretrained=False, num_classes=0, **sizing).eval()
    images = torch.randn(2, 3, *wanted.size)
    with torch.no_grad():
        state = images
        for block in blocks:
            state = block(state)
        expected = net.forward_features(images)
    torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("locations", [1, 2, 4])
def test_features_are_maps_that_shrink(name: str, locations: int) -> None:
    blocks = build_blocks(spec(name, locations))
    assert len(blocks) == locations
    for block in blocks:
        block.train()
    before = [value.clone() for block in blocks for value in block.state_dict().values()]
    shapes = feature_shapes(blocks, spec(name).size)
    after = [value for block in blocks for value in block.state_dict().values()]
    assert all(block.training for block in blocks)
    assert all(map(torch.equal, before, after)), "looking at shapes trains nothing"
    state = torch.randn(2, 3, *spec(name).size)
    for block, (channels, height, width) in zip(blocks, shapes, strict=True):
        state = block(state)
        assert block.as_map(state).shape == (2, channels, height, width)
    heights = [height for _, height, _ in shapes]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("locations", range(1, 7))
def test_neighbouring_layers_go_together_evenly(locations: int) -> None:
    """A network of more layers than locations: each in one block, none twice, the sizes at most one apart."""
    blocks = build_blocks(BackboneSpec(name="test_vit", locations=locations, size=(64, 64)))
    net: Any = timm.create_model("test_vit")
    depth = len(net.blocks)
    counts = [sum(type(layer).__name__ == "Block" for layer in block) for block in blocks]
    assert sum(counts) == depth
    assert max(counts) - min(counts) <= 1


def test_feature_maps_of_tokens_keep_their_places() -> None:
    """A ViT's token of row y, column x must land at [..., y, x], whatever tokens come before."""
    blocks = build_blocks(spec("test_vit"))
    _, height, width = feature_shapes(blocks, (64, 64))[0]
    tokens = torch.arange(height * width).float()[None, :, None]
    prefix = torch.full((1, 1, 1), -1.0)
    found = blocks[0].as_map(torch.cat([prefix, tokens], 1))
    assert torch.equal(found[0, 0].flatten(), tokens.flatten())


@pytest.mark.parametrize(
    ("name", "close"), [("resnet_18", "resnet18"), ("vit_tiny_patch16_225", "vit_tiny_patch16_224")]
)
def test_an_unknown_name_gets_the_near_ones(name: str, close: str) -> None:
    with pytest.raises(ValueError, match=rf"backbone\.name '{name}'.*Close: .*{close}"):
        build_blocks(spec(name))


def test_a_family_that_cannot_be_cut() -> None:
    with pytest.raises(
        ValueError, match=r"backbone\.name inception_v3: InceptionV3 can't be cut; families known: ResNet"
    ):
        build_blocks(spec("inception_v3"))


def test_more_locations_than_stages() -> None:
    with pytest.raises(ValueError, match=r"backbone\.locations 5: test_resnet has 4 stages"):
        build_blocks(spec("test_resnet", locations=5))


@pytest.mark.parametrize("name", ["thin_vgg16_32", pytest.param("vgg16_bn", marks=pytest.mark.slow)])
def test_the_five_stages_of_a_vgg_end_with_their_pools(name: str) -> None:
    blocks = build_blocks(spec(name, locations=5))
    assert [height for _, height, _ in feature_shapes(blocks, (64, 64))] == [32, 16, 8, 4, 2]
    convolutions = [sum(isinstance(layer, torch.nn.Conv2d) for layer in block.modules()) for block in blocks]
    assert convolutions == [2, 2, 3, 3, 3]


@pytest.mark.parametrize("omega", [32, 64])
def test_a_thin_vgg_is_a_vgg_of_at_most_omega_channels(omega: int) -> None:
    """Counted from the published widths: 9 weights a pair of channels, a bias, and two of the batch norm."""
    widths = [3, *(min(omega, full) for full in (64, 64, 128, 128, *[256] * 3, *[512] * 6))]
    expected = sum(9 * before * after + 3 * after for before, after in pairwise(widths))
    blocks = build_blocks(spec(f"thin_vgg16_{omega}", locations=5))
    assert sum(weight.numel() for block in blocks for weight in block.parameters()) == expected
    net: Any = timm.create_model(f"thin_vgg16_{omega}", num_classes=7)
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("omega", [32, 64])
def test_a_whole_thin_vgg_branches_at_its_15_layers(omega: int) -> None:
    """By hand: 13 convolutions with batch norm, then 7 x 7 cells to 2 omega channels, and those to as many."""
    widths = [3, *(min(omega, full) for full in (64, 64, 128, 128, *[256] * 3, *[512] * 6))]
    width = 2 * omega
    expected = [9 * before * after + 3 * after for before, after in pairwise(widths)]
    expected += [49 * omega * width + width, width * width + width]
    whole = BackboneSpec(name=f"thin_vgg16_{omega}_fc", locations=15, size=(224, 224))
    blocks = build_blocks(whole)
    assert [sum(weight.numel() for weight in block.parameters()) for block in blocks] == expected
    net: Any = timm.create_model(whole.name, num_classes=7)
    assert net(torch.zeros(1, 3, 36, 44)).shape == (1, 7)


@pytest.mark.parametrize("name", ["thin_vgg16_32", "thin_vgg16_32_fc"])
def test_a_thin_vgg_has_no_trained_weights(name: str) -> None:
    with pytest.raises(ValueError, match=rf"backbone\.pretrained: there are no weights for {name}"):
        build_blocks(BackboneSpec(name=name, locations=5, size=(64, 64), pretrained=True))


@pytest.mark.parametrize("name", ["test_resnet", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_a_dilated_resnet_has_the_same_weights_and_stride_8(name: str) -> None:
    plain, dilated = spec(name), spec(f"{name}_dilated")
    torch.manual_seed(0)
    blocks = build_blocks(plain)
    torch.manual_seed(0)
    wide = build_blocks(dilated)
    pairs = zip(
        torch.nn.ModuleList(blocks).state_dict().items(), torch.nn.ModuleList(wide).state_dict().items(), strict=True
    )
    assert all(key == other and torch.equal(value, same) for (key, value), (other, same) in pairs)
    assert [height for _, height, _ in feature_shapes(blocks, (64, 64))] == [16, 8, 4, 2]
    assert [height for _, height, _ in feature_shapes(wide, (64, 64))] == [16, 8, 8, 8]


@pytest.mark.parametrize("name", ["vgg11", "swin_nano_patch4_window4", "test_vit"])
def test_a_family_that_cannot_be_dilated(name: str) -> None:
    with pytest.raises(ValueError, match=rf"backbone\.name {name}_dilated: {name} can't be dilated; take a ResNet"):
        build_blocks(spec(f"{name}_dilated"))


def test_an_unknown_dilated_name_gets_the_near_ones() -> None:
    with pytest.raises(ValueError, match=r"'resnt50_dilated' is no timm network"):
        build_blocks(spec("resnt50_dilated"))


ANY_SIZE = [
    *("test_resnet", "test_convnext", "swin_nano_patch4_window4"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("davit_tiny", "swin_tiny_patch4_window7_224")),
]


def dynamic(name: str, size: tuple[int, int]) -> list[Block]:
    torch.manual_seed(0)
    return build_blocks(BackboneSpec(name=name, locations=4, size=size, dynamic=True))


@pytest.mark.parametrize("name", ANY_SIZE)
@pytest.mark.parametrize("size", [(64, 96), (64, 64), (96, 40), (38, 61)])
def test_a_dynamic_backbone_learns_from_images_of_any_size(name: str, size: tuple[int, int]) -> None:
    """Also of one that is no multiple of the windows or of the stride: less than one cell is missing or added."""
    blocks = dynamic(name, (64, 96))
    heights = [height for _, height, _ in feature_shapes(blocks, (64, 96))]
    state, total = torch.randn(2, 3, *size), torch.zeros(())
    for block, height in zip(blocks, heights, strict=True):
        state, stride = block(state), 64 / height
        feature = block.as_map(state)
        assert all(abs(cells * stride - pixels) < stride for cells, pixels in zip(feature.shape[2:], size, strict=True))
        total = total + feature.square().mean()
    total.backward()
    for name, parameter in torch.nn.ModuleList(blocks).named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_dynamic_swin_is_the_network_that_is_made_for_a_size() -> None:
    """Where both have the same windows."""
    blocks = [block.eval() for block in dynamic("swin_nano_patch4_window4", (128, 128))]
    for size in ((128, 128), (256, 128)):
        torch.manual_seed(0)
        net: Any = timm.create_model("swin_nano_patch4_window4", num_classes=0, img_size=size).eval()
        state = images = torch.randn(1, 3, *size)
        with torch.no_grad():
            for block in blocks:
                state = block(state)
            torch.testing.assert_close(state, net.forward_features(images))


def test_a_dynamic_swin_fills_images_up_to_whole_patches() -> None:
    first = dynamic("swin_nano_patch4_window4", (64, 96))[0].eval()
    images = torch.randn(1, 3, 37, 62)
    with torch.no_grad():
        assert torch.equal(first(images), first(torch.nn.functional.pad(images, (0, 2, 0, 3))))


def test_a_table_of_positions_is_for_one_size() -> None:
    with pytest.raises(ValueError, match=r"datasets\.\*\.size: backbone test_vit has a position for each patch"):
        dynamic("test_vit", (64, 64))
