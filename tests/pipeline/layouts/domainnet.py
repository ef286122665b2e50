"""DomainNet's public layout, made small: six domains of four classes, one of which painting's training list lacks."""

from pathlib import Path

from tests.pipeline.layouts._pictures import noise, save

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
CLASSES = ("aircraft_carrier", "The_Eiffel_Tower", "t-shirt", "zigzag")
COUNTS = {"train": 6, "test": 2}  # images a class
LACKS = ("painting", "train", "t-shirt")


def plant(folder: Path) -> Path:
    """Make `<domain>/<class>/*` and the lists; gives the folder of `clipart`, the others lie beside it."""
    for number, domain in enumerate(DOMAINS):
        shape, ending = ((24, 32), "png") if domain == "quickdraw" else ((24, 32, 3), "jpg")
        for place, (split, count) in enumerate(COUNTS.items()):
            lines = []
            for label, name in enumerate(CLASSES):
                for index in range(count if (domain, split, name) != LACKS else 0):
                    seed = 10_000 * number + 1000 * place + 100 * label + index
                    file = f"{domain}/{name}/{domain}_{label:03}_{seed:06}.{ending}"
                    save(folder / file, noise(seed, shape))
                    lines.append(f"{file} {label}")
            (folder / f"{domain}_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder / "clipart"
