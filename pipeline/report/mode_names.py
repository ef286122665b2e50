"""Modes of adapting -> the short names and the families that tables and figures show them by."""

# As in the paper's Table 3; a study's own modes go by their own names.
NAMES = {
    "full": "full",
    "router": "router",
    "router_1": "router + 1",
    "router_2": "router + 2",
    "router_1_most": "router + most used",
    "router_1_least": "router + least used",
    "prune_1_2": "prune 1/2",
    "prune_2_3": "prune 2/3",
    "prune_threshold": "prune θ",
    "top_k_3": "top 3",
    "top_k_2": "top 2",
    "top_k_1": "top 1",
    "hybrid_a": "hybrid A",
    "hybrid_b": "hybrid B",
}
FAMILIES = {
    "full": "full fine-tuning",
    "adapter": "adapters",
    "router": "new routers, some experts",
    "prune": "fewer experts",
    "top": "fewer experts a token",
    "hybrid": "combined",
}
OWN = "of this study"


def mode_name(mode: str) -> str:
    """Map a mode to its short name."""
    return NAMES.get(mode, mode.replace("_", " "))


def mode_family(mode: str) -> str:
    """Map a mode to the family that it belongs to."""
    return FAMILIES.get(mode.split("_")[0], OWN)
