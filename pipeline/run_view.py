"""The comparison of networks as a view of MLflow's run list: parameters against Δ_MTL, and the columns that matter.

MLflow keeps shared views in tags of an experiment, in a format of its own that it may change: so only for releases that
this was looked at with.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

TESTED = ("3.17.",)
NAME = "Parameters and Δ_MTL"
SECTION = "coppice-comparison"
COLUMNS = ("metrics.`final/delta_mtl`", "metrics.`params_m`", "metrics.`gmacs`", "tags.`strategy`", "tags.`method`")


def comparison_view() -> dict[str, Any]:
    """The state of the run list and its charts: networks for all tasks, by strategy."""

    def chart(kind: str, name: str, **settings: Any) -> dict[str, Any]:
        card = {"type": kind, "uuid": f"{SECTION}-{name}", "metricSectionId": SECTION, "runsCountToCompare": 100}
        return {**card, "deleted": False, "isGenerated": False, "displayName": name, **settings}

    def axis(key: str) -> dict[str, str]:
        return {"key": key, "type": "METRIC"}

    return {
        "searchFilter": "tags.task = 'all'",
        "orderByKey": "metrics.`final/delta_mtl`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(COLUMNS),
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "strategy"}]},
        "useGroupedValuesInCharts": False,
        "compareRunSections": [
            {"uuid": SECTION, "name": "Which network at which size", "display": True, "isReordered": False}
        ],
        "compareRunCharts": [
            chart("SCATTER", "Δ_MTL by parameters", xaxis=axis("params_m"), yaxis=axis("final/delta_mtl")),
            chart("SCATTER", "Δ_MTL by multiply-adds", xaxis=axis("gmacs"), yaxis=axis("final/delta_mtl")),
            chart("BAR", "Δ_MTL", metricKey="final/delta_mtl"),
        ],
    }


def shared_view(name: str, state: Mapping[str, Any], time: int) -> tuple[str, str]:
    """Map a view, and when it was made in milliseconds, to the tag of an experiment that MLflow reads it from."""
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    value = {"name": name, "createdAt": time, "state": f"deflate;{packed}"}
    return f"mlflow.sharedViewState.{sha256(name.encode()).hexdigest()}", json.dumps(value)
