"""Taskonomy's public layout, made small: four buildings of the tiny partition, under the names of its download.

The planted scene is a floor before a wall that faces the camera: what the normals and the depth must say is known.
"""

from pathlib import Path

import numpy as np

from tests.pipeline.layouts._pictures import noise, save

SIZE = 32
BUILDINGS = {"allensville": "train", "beechwood": "train", "collierville": "val", "ihlen": "test"}
COUNTS = {"train": 6, "val": 2, "test": 2}  # views a building
FLOOR = (127, 1, 127)  # straight up: green counts down
WALL = (127, 127, 255)
ENDINGS = {
    "rgb": "rgb.png",
    "class_scene": "class_places.npy",
    "segment_semantic": "segmentsemantic.png",
    "edge_texture": "edge_texture.png",
    "keypoints2d": "keypoints2d.png",
    "depth_zbuffer": "depth_zbuffer.png",
    "normal": "normal.png",
}


def plant(folder: Path) -> Path:
    """Make `<modality>/<building>/*` and the split files of two partitions; gives their folder."""
    for place, (building, split) in enumerate(BUILDINGS.items()):
        for index in range(COUNTS[split]):
            seed, view = 100 * place + index, f"point_{3 * index}_view_{index % 2}"
            paths = {name: folder / name / building / f"{view}_domain_{end}" for name, end in ENDINGS.items()}
            for name, picture in pictures(seed).items():
                save(paths[name], picture)
            paths["class_scene"].parent.mkdir(parents=True, exist_ok=True)
            np.save(paths["class_scene"], scores(seed))
    rows = [f"{name},{','.join(str(int(split == part)) for part in COUNTS)}" for name, split in BUILDINGS.items()]
    (folder / "splits_taskonomy").mkdir()
    for partition, more in (("tiny", []), ("medium", ["adairsville,1,0,0"])):
        lines = ["id,train,val,test", *rows, *more]
        (folder / f"splits_taskonomy/train_val_test_{partition}.csv").write_text("\n".join(lines) + "\n")
    return folder


def scores(seed: int) -> np.ndarray:
    """365 probabilities of scenes, the highest that of number seed % 5."""
    values = np.full(365, 0.5 / 364, np.float32)
    values[seed % 5] = 0.5
    return values


def pictures(seed: int) -> dict[str, np.ndarray]:
    """One view's files but the scores, in the modes and value ranges of the public ones."""
    random = np.random.default_rng(seed)
    floor = np.broadcast_to(np.arange(SIZE)[:, None] >= SIZE // 2, (SIZE, SIZE))
    objects = np.where(floor, 3, 1).astype(np.uint8)
    objects[:4] = 0
    depth = np.where(floor, 1024, 2048 + seed).astype(np.uint16)
    depth[:, :2] = 65535
    normals = np.where(floor[..., None], FLOOR, WALL).astype(np.uint8)
    normals[:, :2] = 127
    return {
        "rgb": noise(seed, (SIZE, SIZE, 3)),
        "segment_semantic": objects,
        "edge_texture": random.integers(0, 6000, (SIZE, SIZE), dtype=np.uint16) * (random.random((SIZE, SIZE)) < 0.5),
        "keypoints2d": random.integers(0, 200, (SIZE, SIZE), dtype=np.uint16),
        "depth_zbuffer": depth,
        "normal": normals,
    }
