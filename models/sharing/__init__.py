"""Sharing strategies: one file a strategy, found by name in this dict."""

from models.sharing.adapted import AdaptedModel
from models.sharing.base import SharedModel
from models.sharing.branched import BranchedModel
from models.sharing.lwf import LwfModel
from models.sharing.moe import MoeModel
from models.sharing.taps import TapsModel

SHARING: dict[str, type[SharedModel]] = {
    "branched": BranchedModel,
    "taps": TapsModel,
    "adapted": AdaptedModel,
    "moe": MoeModel,
    "lwf": LwfModel,
}

__all__ = ["SHARING", "SharedModel"]
