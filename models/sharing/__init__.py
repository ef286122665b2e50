"""Sharing strategies: one file a strategy, found by name in this dict."""

from models.sharing.base import SharedModel
from models.sharing.branched import BranchedModel

SHARING: dict[str, type[SharedModel]] = {
    "branched": BranchedModel,
}

__all__ = ["SHARING", "SharedModel"]
