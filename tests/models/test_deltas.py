"""A fingerprint tells any two sets of tensors apart that are not the same; a delta goes back where it came from."""

import pytest
import torch
from torch import Tensor

from models.deltas import delta_of, fingerprint, restore
from tests.models.test_taps_bundle import build

PLAIN = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"a": PLAIN["a"]},
        {"c": PLAIN["a"], "b": PLAIN["b"]},
        {"a": PLAIN["b"], "b": PLAIN["a"]},
        {"a": PLAIN["a"].view(3, 2), "b": PLAIN["b"]},
        {"a": PLAIN["a"].double(), "b": PLAIN["b"]},
        {"a": PLAIN["a"].view(torch.int32), "b": PLAIN["b"]},
        {"a": PLAIN["a"].nextafter(torch.tensor(9.0)), "b": PLAIN["b"]},
        {"a": PLAIN["a"], "b": PLAIN["b"].view(1)},
    ],
)
def test_a_fingerprint_sees_names_types_shapes_and_bits(other: dict[str, Tensor]) -> None:
    assert fingerprint(other) != fingerprint(PLAIN)


def test_a_fingerprint_does_not_see_order_or_layout_in_memory() -> None:
    again = {"b": PLAIN["b"].clone(), "a": PLAIN["a"].t().contiguous().t().requires_grad_()}
    assert fingerprint(again) == fingerprint(PLAIN)
    assert len(fingerprint(PLAIN)) == 16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.uint8, torch.bool])
def test_tensors_of_any_type_have_a_fingerprint(dtype: torch.dtype) -> None:
    assert fingerprint({"a": torch.zeros(3, dtype=dtype)}) != fingerprint({"a": torch.ones(3, dtype=dtype)})


@pytest.mark.parametrize("joint", [False, True])
def test_a_delta_goes_into_a_fresh_network_of_the_same_base(joint: bool) -> None:
    model, fresh = build(joint=joint), build(seed=1)
    fresh.base.load_state_dict(model.base.state_dict())
    delta = delta_of(model, "my depth")
    untouched = delta_of(fresh, "my segmentation")
    restore(fresh, "my depth", delta)
    again = delta_of(fresh, "my depth")
    assert again.keys() == delta.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in delta.items())
    after = delta_of(fresh, "my segmentation")
    assert all(torch.equal(after[name], tensor) for name, tensor in untouched.items())
    closed = [not is_open for is_open in fresh.of("my depth").gates()]
    own = dict(zip((n for layer in fresh.layers for n in layer.parameters), fresh.of("my depth").weights, strict=True))
    for layer, is_closed in zip(fresh.layers, closed, strict=True):
        for name in layer.parameters if is_closed else ():
            assert torch.equal(own[name], fresh.base.get_parameter(name)), "δ of a closed layer is dropped"


def test_taking_a_delta_changes_nothing() -> None:
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    delta_of(model, "my depth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
