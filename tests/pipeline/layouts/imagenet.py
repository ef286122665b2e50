"""ImageNet-1k's public layout, made small: four of its classes, two of them called crane."""

from pathlib import Path

from tests.pipeline.layouts._pictures import noise, save

NAMES = {
    "n01440764": "tench, Tinca tinca",
    "n01443537": "goldfish, Carassius auratus",
    "n02012849": "crane",
    "n03126707": "crane",
}
TRAIN, VAL = 6, 2  # images a class


def plant(folder: Path) -> Path:
    """Make `train/<wnid>`, `val/<wnid>` and the list of names; gives their folder."""
    for place, wnid in enumerate(NAMES):
        for index in range(TRAIN):
            save(folder / f"train/{wnid}/{wnid}_{10 * index + 4}.JPEG", noise(100 * place + index))
        for index in range(VAL):
            number = 1 + place + index * len(NAMES)
            save(folder / f"val/{wnid}/ILSVRC2012_val_{number:08}.JPEG", noise(1000 + number))
    (folder / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in NAMES.items()))
    return folder
