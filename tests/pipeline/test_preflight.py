"""What a study's check refuses before anything is trained, and how the message helps."""

import re
from typing import Any

import pytest

from pipeline.preflight import check_study
from tests.pipeline.expert_study import manifests, study

QUIET: dict[str, Any] = {"taps": {"lams": []}}


def test_a_sound_study_passes_and_one_without_experts_too() -> None:
    check_study(study(**QUIET), manifests())
    check_study(study(moe={"lams": [], "top_k": 9}, **QUIET), manifests())
    check_study(study(adapt={"tasks": []}, **QUIET), manifests())


@pytest.mark.parametrize(
    ("moe", "adapt", "message"),
    [
        ({"top_k": 5}, {}, "params.yaml moe: top_k 5: a router chooses at least 1 and at most all of its 4 experts"),
        ({"placement": ["layers.9*"]}, {}, "params.yaml moe: placement ['layers.9*']: no MLP of swin_nano"),
        ({"upcycled": True, "hidden": 7}, {}, "params.yaml moe: upcycled: experts of 7 hidden channels"),
        ({"experts": 2}, {"modes": ["full", "top_k_3"]}, "params.yaml adapt.modes, top_k_3: top_k 3: a router chooses"),
        ({"baselines": ["finetune"]}, {}, "params.yaml moe.pretrained_on: the baseline finetune needs the task"),
        ({}, {"tasks": ["kind", "field", "fresh", "newest"]}, "adapt.tasks leave no task to train jointly"),
        (
            {"tasks": ["kind", "fresh"]},
            {},
            "params.yaml adapt.tasks[0]: fresh lives on wide, as moe.tasks has fresh; a new data set has one task",
        ),
    ],
)
def test_what_does_not_fit_is_named(moe: dict[str, Any], adapt: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_study(study(moe=moe, adapt=adapt, **QUIET), manifests())


def test_two_tasks_of_one_new_data_set_are_refused() -> None:
    raw = study(adapt={"tasks": ["fresh", "newest"]}, **QUIET).model_dump()
    raw["tasks"]["newest"]["dataset"] = "wide"
    with pytest.raises(ValueError, match=r"adapt.tasks\[1\]: newest lives on wide, as adapt.tasks has fresh"):
        check_study(type(study()).model_validate(raw), manifests())
