"""CelebA's public layout, made small: faces of 22 x 18 pixels where the set has 218 x 178."""

from pathlib import Path

from tests.pipeline.layouts._pictures import noise, save

# fmt: off
ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling",
    "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace",
    "Wearing_Necktie", "Young",
)
# fmt: on
PARTS = "000000001122"  # of the images in turn: 0 train, 1 val, 2 test
PEOPLE = 6


def plant(folder: Path) -> Path:
    """Make `img_align_celeba`, the attributes, the partition and the identities; gives their folder."""
    files = [f"{number:06}.jpg" for number in range(1, len(PARTS) + 1)]
    for number, file in enumerate(files):
        save(folder / "img_align_celeba" / file, noise(number, (22, 18, 3)))
    flags = noise(0, (len(files), len(ATTRIBUTES))) % 2
    rows = [
        f"{file} {' '.join(f'{2 * int(flag) - 1:2}' for flag in row)}" for file, row in zip(files, flags, strict=True)
    ]
    lines = [str(len(files)), " ".join(ATTRIBUTES), *rows]
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    parts = zip(files, PARTS, strict=True)
    (folder / "list_eval_partition.txt").write_text("".join(f"{file} {part}\n" for file, part in parts))
    people = ((file, 1 + number % PEOPLE) for number, file in enumerate(files))
    (folder / "identity_CelebA.txt").write_text("".join(f"{file} {person}\n" for file, person in people))
    return folder
