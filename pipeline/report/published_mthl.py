"""The tables of MTHL as they are printed: facts, no results of ours. A number that is missing in print is None."""

from pipeline.report.published import PaperTable

PRESET = "mthl"
SIZES = ("#P, M", "FLOPs, G")
LEARNT = ("ImageNet top-1", "ImageNet top-5", "COCO AP", "AP50", "AP75", "ADE20K mIoU", "mAcc", "aAcc")
NEW_SETS = ("P365 top-1", "iNat18 top-1", "Pets top-1", "CUB top-1", "Cars top-1", "PASC.", "City.", "NYU", "mean")
SWIN, DAVIT = "swin_{}_patch4_window7_224", "davit_{}"

_TRAINED = {
    SWIN.format("tiny"): {
        "scratch, three networks": (27.5, 4.4, 80.6, 95.2, 34.9, 54.3, 36.6, 32.0, 41.4, 75.8),
        "pretrained, fine-tuned, three": (27.5, 4.4, None, None, 42.0, 64.7, 45.9, 44.3, 55.8, 81.0),
        "MTHL, dense": (27.5, 4.4, 79.7, 95.1, 43.8, 65.7, 46.8, 44.4, 54.8, 80.5),
        "MTHL": (50.9, 5.1, 80.3, 94.7, 45.0, 66.5, 48.2, 44.6, 55.0, 81.0),
    },
    SWIN.format("small"): {
        "scratch, three networks": (48.9, 8.5, 82.6, 96.1, 36.3, 55.6, 38.4, 34.5, 43.9, 77.1),
        "pretrained, fine-tuned, three": (48.9, 8.5, None, None, 46.0, 68.0, 49.9, 47.0, 56.9, 81.7),
        "MTHL, dense": (48.9, 8.5, 80.7, 95.5, 45.8, 67.8, 48.7, 47.7, 58.4, 81.8),
        "MTHL": (89.1, 9.2, 82.0, 95.9, 45.7, 66.8, 49.1, 46.7, 57.1, 81.8),
    },
    SWIN.format("base"): {
        "scratch, three networks": (86.7, 15.1, 83.1, 96.4, 35.5, 54.7, 37.4, 35.4, 44.8, 77.6),
        "pretrained, fine-tuned, three": (86.7, 15.1, None, None, 47.3, 69.0, 51.2, 47.7, 58.7, 82.3),
        "MTHL, dense": (86.7, 15.1, 82.2, 96.2, 47.5, 69.2, 51.0, 48.8, 59.7, 82.5),
        "MTHL": (158.3, 16.2, 82.3, 96.2, 47.6, 69.1, 50.9, 48.2, 59.0, 82.5),
    },
    DAVIT.format("tiny"): {
        "scratch, three networks": (27.6, 4.4, 82.5, 96.2, 37.7, 57.1, 40.0, 36.4, 46.4, 77.8),
        "pretrained, fine-tuned, three": (27.6, 4.4, None, None, 45.4, 66.9, 48.4, 45.8, 56.0, 81.8),
        "MTHL, dense": (27.6, 4.4, 81.3, 95.8, 44.6, 66.6, 47.5, 46.2, 56.4, 81.6),
        "MTHL": (51.2, 5.1, 82.0, 95.8, 45.1, 67.5, 48.1, 47.4, 57.1, 82.1),
    },
    DAVIT.format("small"): {
        "scratch, three networks": (49.0, 8.6, 83.8, 96.8, 37.8, 56.7, 40.5, 38.2, 48.4, 78.8),
        "pretrained, fine-tuned, three": (49.0, 8.6, None, None, 47.2, 68.9, 50.7, 48.3, 60.2, 82.3),
        "MTHL, dense": (49.0, 8.6, 82.6, 96.5, 47.3, 69.2, 50.6, 48.7, 59.1, 82.7),
        "MTHL": (88.9, 9.2, 83.3, 96.5, 46.4, 67.7, 49.5, 47.6, 57.9, 82.6),
    },
    DAVIT.format("base"): {
        "scratch, three networks": (86.9, 15.2, 84.2, 96.9, 38.0, 57.2, 40.5, 38.5, 48.7, 78.9),
        "pretrained, fine-tuned, three": (86.9, 15.2, None, None, 48.1, 69.7, 51.3, 49.3, 60.2, 83.0),
        "MTHL, dense": (86.8, 15.2, 83.9, 96.9, 48.3, 70.4, 51.8, 50.0, 60.3, 83.1),
        "MTHL": (158.7, 16.3, 83.6, 96.8, 47.8, 69.5, 51.5, 49.6, 60.1, 83.1),
    },
}
_DOWNSTREAM = {
    SWIN.format("base"): {
        "pretrained on ImageNet": (58.7, 72.9, 94.0, 83.9, 94.0, 76.9, 80.6, 76.2, 78.7),
        "Mod-Squad": (56.4, 69.4, 92.3, 79.8, 93.7, 77.2, 81.1, 77.5, 78.1),
        "MTHL, dense": (59.1, 73.3, 94.2, 84.3, 94.2, 78.7, 82.1, 78.0, 79.9),
        "MTHL": (59.4, 73.6, 94.6, 84.7, 94.9, 79.1, 82.5, 78.7, 80.4),
    },
    DAVIT.format("base"): {
        "pretrained on ImageNet": (59.2, 73.4, 94.4, 88.4, 94.9, 77.4, 81.5, 76.7, 79.5),
        "MTHL, dense": (59.6, 73.5, 94.8, 89.0, 95.0, 78.8, 82.7, 78.6, 80.6),
        "MTHL": (60.1, 73.9, 94.9, 89.4, 95.0, 79.5, 83.4, 79.3, 81.2),
    },
}
TRAINED = tuple(
    PaperTable(
        source="MTHL paper, Table 1", presets=(PRESET,), columns=(*SIZES, *LEARNT), rows=_TRAINED[name], backbone=name
    )
    for name in _TRAINED
)
DOWNSTREAM = tuple(
    PaperTable(source="MTHL paper, Table 2", presets=(PRESET,), columns=NEW_SETS, rows=_DOWNSTREAM[name], backbone=name)
    for name in _DOWNSTREAM
)
ADAPTED = PaperTable(
    source="MTHL paper, Table 3",
    presets=(PRESET,),
    backbone=DAVIT.format("small"),
    columns=("trained, M", "model, M", "FLOPs, G", *NEW_SETS),
    rows={
        "full fine-tuning": (88.9, 88.9, 9.2, 59.0, 72.9, 94.0, 88.2, 95.0, 78.6, 81.4, 77.4, 79.9),
        "adapter": (14.8, None, None, 50.7, 62.4, 81.1, 75.8, 80.8, 67.7, 69.9, 66.8, 68.7),
        "router": (0.4, None, None, 52.1, 64.2, 83.3, 77.9, 78.2, 69.6, 71.8, 68.7, 70.3),
        "router + 1": (5.4, None, None, 57.4, 70.7, 91.3, 85.8, 94.7, 76.5, 78.8, 75.2, 77.8),
        "router + 2": (10.4, None, None, 58.8, 72.7, 94.0, 87.8, 95.0, 77.9, 80.7, 76.7, 79.4),
        "prune θ, first": (None, 60.2, None, 58.9, 72.8, 93.9, 88.1, 95.0, 78.6, 81.4, 77.3, 79.9),
        "prune θ, second": (None, 54.4, None, 58.8, 72.7, 93.8, 88.0, None, 78.4, 81.4, 77.2, 79.7),
        "prune 1/2": (None, 59.9, None, 58.8, 72.8, 93.9, 88.0, 93.9, 78.6, 81.4, 77.3, 79.8),
        "prune 2/3": (None, 49.9, None, 58.8, 72.6, 93.6, 87.8, 93.8, 78.6, 81.3, 77.2, 79.7),
        "top 3": (None, None, 7.7, 58.8, 72.5, 93.3, 87.3, 94.9, 77.3, 80.1, 76.3, 79.0),
        "top 2": (None, None, 6.2, 58.1, 70.7, 91.9, 86.2, 92.0, 74.9, 77.6, 73.7, 76.8),
        "top 1": (None, None, 4.7, 48.5, 59.9, 77.3, 72.4, 77.4, 64.3, 66.6, 63.3, 65.4),
        "hybrid A": (5.4, 49.9, 6.2, 58.0, 70.6, 91.1, 85.8, 94.7, 76.3, 78.5, 73.2, 77.4),
        "hybrid B": (10.4, 49.9, 7.7, 58.8, 72.4, 93.3, 87.2, 94.9, 77.1, 79.9, 76.2, 78.8),
    },
)
CONTINUAL = PaperTable(
    source="MTHL paper, Table 4",
    presets=(PRESET,),
    backbone=DAVIT.format("small"),
    columns=("new a task, M", "trained a task, M", *NEW_SETS),
    rows={
        "learning without forgetting": (0, 88.9, 46.2, 57.0, 73.5, 70.6, 75.5, 62.7, 71.1, 68.9, 65.7),
        "router": (0.4, 0.4, 52.1, 64.2, 83.3, 77.9, 78.2, 69.6, 71.8, 68.7, 70.7),
        "router + 1": (5.4, 5.4, 57.6, 70.8, 91.3, 85.9, 94.7, 76.8, 79.0, 75.6, 79.0),
        "router + 2": (10.4, 10.4, 58.8, 72.8, 94.5, 88.0, 95.0, 78.1, 80.7, 76.9, 80.6),
        "full fine-tuning": (None, None, 59.0, 72.9, 94.0, 88.2, 95.0, 78.6, 81.4, 77.4, 80.8),
    },
)
