"""The reader of ImageNet-1k: its classes' names, and the ways in which its validation labels come."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from pipeline.datasets import Source
from tests.pipeline.layouts import imagenet
from tests.pipeline.layouts._pictures import noise, save
from tests.pipeline.test_public_readers import open_at


def flatten(root: Path) -> dict[str, str]:
    """Move val's images out of their folders; gives the class of each."""
    answers = {}
    for path in sorted((root / "val").glob("*/*")):
        answers[path.stem] = path.parent.name
        path.rename(root / "val" / path.name)
    for folder in (root / "val").iterdir():
        if folder.is_dir():
            folder.rmdir()
    return answers


def labels_of_test(source: Source) -> dict[str, int | None]:
    return {Path(row.id).stem: row.label for row in source.rows() if row.split == "test"}


def test_imagenets_two_cranes_have_two_names(tmp_path: Path) -> None:
    classes = open_at("imagenet", imagenet.plant(tmp_path)).columns()["label"].classes
    assert classes[0] == "tench, Tinca tinca"
    assert classes[2:] == ("crane (n02012849)", "crane (n03126707)")
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    assert open_at("imagenet", tmp_path).columns()["label"].classes == tuple(imagenet.NAMES)


def test_imagenet_as_kaggle_gives_it(tmp_path: Path) -> None:
    inner = tmp_path / "ILSVRC/Data/CLS-LOC"
    expected = labels_of_test(open_at("imagenet", imagenet.plant(inner)))
    answers = flatten(inner)
    with pytest.raises(ValueError, match=r"holds no folders, so its classes must stand in LOC_val_solution.csv"):
        open_at("imagenet", tmp_path).rows()
    (inner / "LOC_synset_mapping.txt").rename(tmp_path / "LOC_synset_mapping.txt")
    lines = [f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8 " for name, wnid in answers.items()]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]) + "\n")
    source = open_at("imagenet", tmp_path)
    assert labels_of_test(source) == expected
    assert source.columns()["label"].classes[1] == "goldfish, Carassius auratus"


def test_imagenet_with_its_development_kit(tmp_path: Path) -> None:
    root = imagenet.plant(tmp_path)
    expected, answers = labels_of_test(open_at("imagenet", root)), flatten(root)
    kit = root / "ILSVRC2012_devkit_t12/data"
    kit.mkdir(parents=True)
    numbers = {"n03126707": 1, "n01440764": 2, "n02012849": 3, "n01443537": 4, "n00001740": 1001}
    table = np.empty((len(numbers), 1), dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for place, (wnid, number) in enumerate(numbers.items()):
        table[place, 0] = (number, wnid, "words")
    scipy.io.savemat(kit / "meta.mat", {"synsets": table})
    truth = kit / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("".join(f"{numbers[answers[name]]}\n" for name in sorted(answers)))
    assert labels_of_test(open_at("imagenet", root)) == expected
    truth.write_text(truth.read_text() + "7\n")
    with pytest.raises(ValueError, match=r"ground_truth.txt line 9: no number of a class"):
        open_at("imagenet", root).rows()


def test_imagenet_refuses_a_class_without_training_images(tmp_path: Path) -> None:
    root = imagenet.plant(tmp_path)
    save(root / "val/n09999999/x.JPEG", noise(1))
    with pytest.raises(ValueError, match=r"the class n09999999 of val has no folder in .*train"):
        open_at("imagenet", root).rows()
    (root / "train/n09999999").mkdir()
    with pytest.raises(ValueError, match=r"n09999999 holds no images"):
        open_at("imagenet", root).rows()
