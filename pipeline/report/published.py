"""Tables of the three papers that belong to a preset of this project, as printed: facts, no results of ours.

"branched" is Vandenhende et al. 2020, "TAPS" Wallingford et al. 2022, "MTHL" the paper of heterogeneous training with
mixtures of experts. A number that is missing in print is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PARAMS, DELTA, MULTIPLE, ACCURACY = "#P, M", "Δ_MTL, %", "parameters, × base", "accuracy, %"
ADDED, LAYERS = "additional parameters, %", "task-specific layers, %"
DOMAINS = ("real", "painting", "quickdraw", "clipart", "infograph", "sketch")
SKETCH = ("flowers", "wikiart", "sketch", "cars", "cub")
DECATHLON = ("aircraft", "cifar100", "daimlerpedcls", "dtd", "gtsrb", "vgg_flowers", "omniglot", "svhn", "ucf101")

Values = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One printed table. `presets` are the studies of the same data, `backbone` is its network's where not theirs."""

    source: str
    presets: Sequence[str]
    columns: Sequence[str]
    rows: Mapping[str, Values]
    backbone: str = ""


CITYSCAPES = PaperTable(
    source="branched paper, Table 2",
    presets=("cityscapes",),
    columns=("segmentation IoU, %", "instances px", "disparity px", PARAMS, DELTA),
    rows={
        "single task": (65.2, 11.7, 2.57, 138, 0.00),
        "MTL baseline": (61.5, 11.8, 2.66, 92, -3.33),
        "MTAN": (62.8, 11.8, 2.66, 113, -2.53),
        "cross-stitch": (65.1, 11.6, 2.55, 140, 0.42),
        "NDDR-CNN": (65.6, 11.6, 2.54, 190, 0.89),
        "Ours-1": (62.1, 11.7, 2.66, 107, -2.68),
        "Ours-2": (62.7, 11.7, 2.62, 114, -1.84),
        "Ours-3": (64.1, 11.6, 2.62, 116, -0.96),
    },
)
TASKONOMY = PaperTable(
    source="branched paper, Table 1",
    presets=("taskonomy",),
    columns=(
        "depth L1",
        "segmentation IoU, %",
        "scene top-5, %",
        "edges L1 × 100",
        "keypoints L1 × 100",
        PARAMS,
        DELTA,
    ),
    rows={
        "single task": (0.60, 43.5, 66.0, 0.99, 0.23, 224, 0.00),
        "MTL baseline": (0.75, 47.8, 56.0, 1.37, 0.34, 130, -22.50),
        "MTAN": (0.71, 43.8, 59.6, 1.86, 0.40, 158, -37.36),
        "cross-stitch": (0.61, 44.0, 58.2, 1.35, 0.50, 224, -32.29),
        "NDDR-CNN": (0.66, 45.9, 64.5, 1.05, 0.45, 258, -21.02),
        "FAFS-1": (0.74, 46.1, 62.7, 1.30, 0.39, 174, -24.5),
        "FAFS-2": (0.80, 39.9, 62.4, 1.68, 0.52, 188, -48.32),
        "FAFS-3": (0.74, 46.1, 64.9, 1.05, 0.27, 196, -8.48),
        "Ours-1": (0.76, 47.6, 63.3, 1.12, 0.29, 174, -11.88),
        "Ours-2": (0.74, 48.0, 63.6, 0.96, 0.35, 188, -12.66),
        "Ours-3": (0.74, 47.9, 64.5, 0.94, 0.26, 196, -4.93),
    },
)
CELEBA = PaperTable(
    source="branched paper, Table 3",
    presets=("celeba", "celeba_64"),
    columns=(ACCURACY, PARAMS),
    rows={
        "MOON": (90.94, 119.73),
        "Independent Group": (91.06, None),
        "MCNN": (91.26, None),
        "MCNN-AUX": (91.29, None),
        "VGG-16": (91.44, 134.41),
        "FAFS": (90.79, 2.09),
        "GNAS": (91.63, 7.73),
        "ResNet-18, uniform": (90.38, 11.2),
        "ResNet-18, MGDA": (91.75, 11.2),
        "Ours-32": (91.46, 2.20),
        "Ours-64": (91.73, 7.73),
    },
)
SKETCH_TOTAL = PaperTable(
    source="TAPS paper, Tables 1 and 10",
    presets=("imagenet_to_sketch",),
    columns=(MULTIPLE, *SKETCH),
    rows={
        "fine-tuning": (6, 95.73, 78.02, 81.83, 91.89, 83.61),
        "feature extractor": (1, 89.14, 61.74, 65.90, 55.52, 63.46),
        "Piggyback": (6, 94.76, 71.33, 79.91, 89.62, 81.59),
        "PackNet →": (None, 93.00, 69.40, 76.20, 86.10, 80.40),
        "PackNet ←": (None, 90.60, 70.3, 78.7, 80.0, 71.4),
        "SpotTune": (7, 96.34, 75.77, 80.2, 92.4, 84.03),
        "WTPB": (6, 96.50, 74.8, 80.2, 91.5, 82.6),
        "BA²": (3.8, 95.74, 72.32, 79.28, 92.14, 81.19),
        "TAPS": (4.12, 96.68, 76.94, 80.74, 89.76, 82.65),
        "norm only": (1.01, 91.07, 70.06, 78.47, 79.41, 76.25),
        "manual freezing": (4.15, 92.35, 73.32, 78.68, 87.62, 81.01),
    },
)
SKETCH_SHARES = PaperTable(
    source="TAPS paper, Tables 1 and 7",
    presets=("imagenet_to_sketch",),
    columns=SKETCH,
    rows={
        f"TAPS: {ACCURACY}": (96.68, 76.94, 80.74, 89.76, 82.65),
        f"TAPS: {ADDED}": (65.50, 52.82, 75.87, 41.85, 70.61),
        f"TAPS: {LAYERS}": (22.64, 20.75, 43.40, 14.47, 28.30),
    },
)
DECATHLON_TOTAL = PaperTable(
    source="TAPS paper, Table 4",
    presets=("decathlon",),
    columns=(MULTIPLE, *DECATHLON, "mean with ImageNet", "S-score with ImageNet"),
    rows={
        "feature extractor": (1, 23.3, 63.1, 80.3, 45.4, 68.2, 73.7, 58.5, 43.5, 26.8, 54.3, 544),
        "fine-tuning": (10, 60.3, 82.1, 92.8, 55.5, 97.5, 81.4, 87.7, 96.6, 51.2, 76.5, 2500),
        "series adapters": (2, 56.7, 81.2, 93.9, 50.9, 97.1, 66.2, 89.6, 96.1, 47.5, 73.9, 2118),
        "DAM": (2.17, 64.1, 80.1, 91.3, 56.5, 98.5, 86.1, 89.7, 96.8, 49.4, 77.0, 2851),
        "parallel adapters": (2, 64.2, 81.9, 94.7, 58.8, 99.4, 84.7, 89.2, 96.5, 50.9, 78.1, 3412),
        "Piggyback": (10, 65.3, 79.9, 97.0, 57.5, 97.3, 79.1, 87.6, 97.2, 47.5, 76.6, 2838),
        "WTPB": (10, 52.8, 82.0, 96.2, 58.7, 99.2, 88.2, 89.2, 96.8, 48.6, 77.2, 3497),
        "BA²": (6.13, 49.9, 78.1, 95.5, 55.1, 99.4, 86.1, 88.7, 96.9, 50.2, 75.7, 3199),
        "SpotTune": (11, 63.9, 80.5, 96.5, 57.1, 99.5, 85.2, 88.8, 96.7, 52.3, 78.1, 3612),
        "TAPS λ 0.25": (5.24, 66.58, 81.76, 97.07, 58.83, 99.07, 86.99, 88.79, 95.72, 51.92, 78.70, 3533),
        "TAPS λ 0.5": (3.88, 62.05, 81.74, 97.13, 57.02, 98.40, 85.80, 88.96, 95.62, 49.06, 77.61, 3180),
        "TAPS λ 0.75": (3.43, 62.62, 81.07, 95.77, 57.34, 98.61, 85.67, 89.00, 95.65, 49.56, 77.56, 3096),
        "TAPS λ 1": (3.13, 63.43, 81.04, 96.99, 58.19, 98.38, 84.08, 89.16, 94.99, 51.10, 77.77, 3088),
    },
)
DECATHLON_SHARES = PaperTable(
    source="TAPS paper, Table 8",
    presets=("decathlon",),
    columns=DECATHLON,
    rows={
        f"TAPS λ 0.25: {ACCURACY}": (66.58, 81.76, 97.07, 58.83, 99.07, 86.99, 88.79, 95.72, 51.92),
        f"TAPS λ 0.25: {ADDED}": (80.92, 60.73, 0.13, 53.28, 20.38, 40.53, 66.38, 40.69, 60.72),
        f"TAPS λ 0.25: {LAYERS}": (44.00, 24.00, 0.00, 24.00, 8.00, 16.00, 28.00, 16.00, 24.00),
        f"TAPS λ 1: {ACCURACY}": (63.43, 81.04, 96.99, 58.19, 98.38, 84.08, 89.16, 94.99, 51.10),
        f"TAPS λ 1: {ADDED}": (32.95, 30.43, 0.13, 20.38, 0.13, 20.33, 47.45, 20.41, 40.53),
        f"TAPS λ 1: {LAYERS}": (16.00, 12.00, 0.00, 8.00, 0.00, 8.00, 20.00, 8.00, 16.00),
    },
)
DOMAINNET_JOINT = PaperTable(
    source="TAPS paper, Tables 5 and 9, joint",
    presets=("domainnet",),
    columns=(MULTIPLE, *DOMAINS, "mean"),
    rows={
        "fine-tuning": (1, 75.01, 66.13, 54.72, 75.00, 36.35, 65.55, 62.12),
        "AdaShare": (1, 76.90, 67.90, 61.17, 75.88, 31.52, 63.96, 62.88),
        "TAPS": (1.46, 78.91, 67.91, 70.18, 76.98, 39.30, 67.81, 66.84),
        "TAPS, standard": (1.43, 78.45, 68.23, 70.32, 77.00, 39.35, 67.95, 66.88),
    },
)
DOMAINNET_INCREMENTAL = PaperTable(
    source="TAPS paper, Table 5, incremental",
    presets=("domainnet_incremental",),
    columns=(MULTIPLE, *DOMAINS, "mean"),
    rows={
        "fine-tuning": (6, 81.51, 69.90, 73.17, 74.08, 40.38, 67.39, 67.73),
        "AdaShare": (5.73, 79.39, 65.74, 68.15, 74.45, 34.11, 64.15, 64.33),
        "TAPS": (4.90, 80.28, 67.28, 71.79, 74.85, 38.21, 66.66, 66.51),
    },
)
