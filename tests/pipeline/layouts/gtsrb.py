"""German traffic signs as torchvision lays them out, made small: two classes, tracks of three frames."""

from pathlib import Path

from tests.pipeline.layouts._pictures import noise, save

CLASSES = (0, 42)
TRACKS, FRAMES = 8, 3


def plant(folder: Path) -> Path:
    """Make `GTSRB/Training`, `GTSRB/Final_Test/Images` and the answers; gives their folder."""
    answers = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for place, number in enumerate(CLASSES):
        for track in range(TRACKS):
            for frame in range(FRAMES):
                seed = 100 * number + 10 * track + frame
                save(folder / f"GTSRB/Training/{number:05}/{track:05}_{frame:05}.ppm", noise(seed))
        for index in (place, place + len(CLASSES)):
            save(folder / f"GTSRB/Final_Test/Images/{index:05}.ppm", noise(9000 + index))
            answers.append(f"{index:05}.ppm;32;24;5;5;27;19;{number}")
    (folder / "GT-final_test.csv").write_text("\n".join(answers) + "\n")
    return folder
