"""iNaturalist 2018's public layout, made small: four species of three groups, with their published names."""

import json
from pathlib import Path

from tests.pipeline.layouts._pictures import noise, save

SPECIES = {
    0: ("Aves", "Accipiter cooperii"),
    1: ("Plantae", "Acer rubrum"),
    2: ("Plantae", "Acer saccharum"),
    3: ("Insecta", "Danaus plexippus"),
}
COUNTS = {"train": 6, "val": 2}  # images a class


def plant(folder: Path) -> Path:
    """Make the two lists, the names and `train_val2018`; gives their folder."""
    categories = [{"id": key, "name": str(key), "supercategory": group} for key, (group, _) in SPECIES.items()]
    for number, (split, count) in enumerate(COUNTS.items()):
        images, annotations = [], []
        for key, (group, _) in SPECIES.items():
            for index in range(count):
                seed = 1000 * number + 100 * key + index
                file = f"train_val2018/{group}/{key}/{seed:032x}.jpg"
                save(folder / file, noise(seed))
                images.append({"id": seed, "file_name": file, "width": 32, "height": 24, "rights_holder": "nobody"})
                annotations.append({"id": seed, "image_id": seed, "category_id": key})
        found = {"info": {}, "images": images, "licenses": [], "annotations": annotations, "categories": categories}
        (folder / f"{split}2018.json").write_text(json.dumps(found))
    names = [{"id": key, "name": name, "supercategory": group} for key, (group, name) in SPECIES.items()]
    (folder / "categories.json").write_text(json.dumps(names))
    return folder
