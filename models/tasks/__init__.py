"""Task kinds: one file a kind, found by name in this dict."""

from models.tasks.attributes import Attributes
from models.tasks.base import Task
from models.tasks.classification import Classification
from models.tasks.depth import Depth
from models.tasks.detection import Detection
from models.tasks.edges import Edges
from models.tasks.keypoints import Keypoints
from models.tasks.normals import Normals
from models.tasks.offsets import Offsets
from models.tasks.regression import Regression
from models.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "attributes": Attributes,
    "segmentation": Segmentation,
    "depth": Depth,
    "regression": Regression,
    "edges": Edges,
    "normals": Normals,
    "keypoints": Keypoints,
    "offsets": Offsets,
    "detection": Detection,
}

__all__ = ["TASKS", "Task"]
