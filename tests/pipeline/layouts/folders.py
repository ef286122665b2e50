"""The five sets of ImageNet-to-Sketch, made small, as the authors of PackNet and Piggyback lay them out."""

from pathlib import Path

from tests.pipeline.layouts._pictures import noise, save

CLASSES = {
    "cubs_cropped": ("001.Black_footed_Albatross", "002.Laysan_Albatross"),
    "stanford_cars_cropped": ("001.AM General Hummer SUV 2000", "002.Acura RL Sedan 2012"),
    "flowers": ("0", "1", "2"),
    "wikiart": ("albrecht-durer", "claude-monet"),
    "sketches": ("airplane", "alarm clock"),
}
COUNTS = {"train": 8, "test": 2}


def plant(folder: Path) -> Path:
    """Make the five, `<set>/{train,test}/<class>/*.jpg`; gives the root of `flowers`, the others lie beside it."""
    for number, (name, classes) in enumerate(CLASSES.items()):
        for split, count in COUNTS.items():
            for place, label in enumerate(classes):
                for index in range(count):
                    seed = 1000 * number + 100 * (split == "test") + 10 * place + index
                    save(folder / name / split / label / f"image_{seed:05}.jpg", noise(seed))
    return folder / "flowers"
