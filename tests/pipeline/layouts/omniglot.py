"""One of Omniglot's sets, made small in classes: three characters, drawn by twenty people each, at 105 pixels."""

from pathlib import Path

from tests.pipeline.layouts._pictures import noise, save

CHARACTERS = ("Greek/character01", "Greek/character02", "Tibetan/character01")
DRAWERS = 20


def plant(folder: Path) -> Path:
    """Make `<alphabet>/<character>/<id>_<drawer>.png`, of one bit a pixel; gives their folder."""
    for number, name in enumerate(CHARACTERS):
        for drawer in range(1, DRAWERS + 1):
            ink = noise(100 * number + drawer, (105, 105)) > 50
            save(folder / name / f"{900 + number:04}_{drawer:02}.png", ink)
    return folder
