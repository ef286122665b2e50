"""Files as people really have them: each gives the right picture and labels, or a message that names file and row."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from models.spec import IGNORE
from pipeline.datasets import BadExample, Source, SourceSettings, reader_of
from pipeline.datasets.files import (
    content_group,
    content_groups,
    find,
    inside,
    noting_reads,
    read_field,
    read_ids,
    read_rgb,
)
from tests.pipeline import test_readers
from tests.pipeline.cases import prepare, settings

SIZE = (24, 32)
RED, GREEN, BLUE, WHITE = (200, 30, 40), (20, 160, 60), (30, 60, 180), (255, 255, 255)


def picture(height: int = 24, width: int = 32) -> Image.Image:
    """Four quarters of four colours, so that no turn or mirroring leaves it as it is."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def close(found: np.ndarray, image: Image.Image, within: int) -> bool:
    """Far from the quarters' borders, where JPEG rings."""
    wanted = np.array(image, dtype=int)
    assert found.shape == wanted.shape
    rows, columns = (slice(2, None, wanted.shape[0] // 2), slice(2, None, wanted.shape[1] // 2))
    return bool((abs(found.astype(int) - wanted)[rows, columns] <= within).all())


# Pictures


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_by_its_tag(kind: str, orientation: int, tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}[kind]
    path = tmp_path / "a"
    path.write_bytes(encoded(picture(), kind, exif=tag, **options))
    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert np.array_equal(read_rgb(path), np.array(upright))
    assert upright.size == ((32, 24) if orientation < 5 else (24, 32))
    assert (orientation == 1) == close(read_rgb(path), picture(*upright.size[::-1]), 6)


def without_adobe(data: bytes) -> bytes:
    """A JPEG without its APP14 segment, and with the values that then mean the same inks."""
    start = data.index(b"\xff\xee")
    (length,) = struct.unpack(">H", data[start + 2 : start + 4])
    return data[:start] + data[start + 2 + length :]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("adobe", [False, True])
def test_inks_become_the_right_colours(adobe: bool, turned: bool, tmp_path: Path) -> None:
    """By libjpeg's rule: an Adobe marker means inverted inks, none means that 255 is full ink."""
    tag = Image.Exif()
    tag[0x0112] = 3 if turned else 1
    inks = picture().convert("CMYK")
    stored = inks if adobe else Image.eval(inks, lambda value: 255 - value)
    data = encoded(stored, "JPEG", quality=98, exif=tag)
    (tmp_path / "a.jpg").write_bytes(data if adobe else without_adobe(data))
    wanted = picture().rotate(180) if turned else picture()
    assert close(read_rgb(tmp_path / "a.jpg"), wanted, 8)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    hidden = picture().convert("RGBA")
    hidden.putalpha(Image.new("L", hidden.size, 255))
    hidden.paste((9, 8, 7, 0), (0, 0, 16, 12))
    hidden.save(tmp_path / "rgba.png")
    seen = picture()
    seen.paste(WHITE, (0, 0, 16, 12))
    assert np.array_equal(read_rgb(tmp_path / "rgba.png"), np.array(seen))
    half = Image.new("RGBA", (4, 4), (100, 0, 0, 128))
    half.save(tmp_path / "half.png")
    assert read_rgb(tmp_path / "half.png")[0, 0] == pytest.approx([255 - 155 * 128 / 255, *[255 - 128] * 2], abs=1)


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    indexed = Image.new("P", (4, 4), 1)
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.paste(0, (0, 0, 2, 4))
    indexed.save(tmp_path / "a.png", transparency=0)
    assert read_rgb(tmp_path / "a.png")[0, ::3].tolist() == [[255, 255, 255], [40, 50, 60]]
    indexed.save(tmp_path / "b.png")
    assert read_rgb(tmp_path / "b.png")[0, ::3].tolist() == [[10, 20, 30], [40, 50, 60]]


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_pictures_have_three_equal_channels(mode: str, tmp_path: Path) -> None:
    grey = picture().convert("L").convert(mode)
    grey.save(tmp_path / "a.png")
    found = read_rgb(tmp_path / "a.png")
    assert np.array_equal(found, np.array(grey.convert("L"))[..., None].repeat(3, axis=2))


def test_16_bits_a_colour_are_read_as_8(tmp_path: Path) -> None:
    """Written by hand: Pillow itself writes no such file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    values = np.array(picture(), dtype=np.uint16)
    lines = b"".join(b"\0" + (line * 257).astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", 32, 24, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), values)


def test_a_name_does_not_decide_how_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(picture(), "PNG"))
    assert np.array_equal(read_rgb(tmp_path / "a.jpg"), np.array(picture()))


def of_size(width: int, height: int) -> bytes:
    """A PNG that says it has this size."""
    data = bytearray(encoded(picture(), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an image that can be read; the file is empty"),
    "text": (b"<!DOCTYPE html><p>404", "not an image that can be read; it begins with b'<!DOCTYPE html"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "it begins with b'version https://git-lfs"),
    "truncated jpeg": (encoded(picture(), "JPEG")[:-200], "[Tt]runcated"),
    "truncated png": (encoded(picture(), "PNG")[:-30], r"truncated|broken"),
    "bomb": (of_size(60000, 60000), "too many pixels"),
    "no size": (of_size(0, 24), "not an image that can be read"),
    "16-bit grey": (encoded(Image.fromarray(np.full((4, 4), 3000, np.uint16)), "PNG"), "more than 8 bits"),
    "floats": (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "more than 8 bits"),
}


@pytest.mark.parametrize(("data", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named(data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BadExample, match=rf"a\.png: .*({why})"):
        read_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM"])
def test_any_damage_is_a_bad_example_at_worst(kind: str, seed: int, tmp_path: Path) -> None:
    random, data = np.random.default_rng(seed), bytearray(encoded(picture(), kind))
    for place in random.integers(0, min(len(data), 300), 3):
        data[place] = random.integers(256)
    (tmp_path / "a").write_bytes(data[: random.integers(len(data) // 2, len(data) + 1)])
    for read in (read_rgb, read_ids, read_field):
        try:
            assert read(tmp_path / "a").ndim in (2, 3)
        except BadExample as error:
            assert str(tmp_path / "a") in str(error)  # noqa: PT017 - either end is right


# Label maps


def test_ids_are_read_from_palettes_and_greys_alike(tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    grey, indexed = Image.fromarray(ids), Image.fromarray(ids)
    indexed.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    for name, image in {"grey": grey, "palette": indexed}.items():
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_ids(tmp_path / f"{name}.png"), ids)
    for name, image in {"colour": picture(), "wide": Image.fromarray(ids.astype(np.uint16))}.items():
        image.save(tmp_path / f"{name}.png")
        with pytest.raises(BadExample, match=rf"{name}\.png: mode .* one channel of 8-bit class ids"):
            read_ids(tmp_path / f"{name}.png")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_depth_keeps_every_value(kind: str, tmp_path: Path) -> None:
    depth = np.random.default_rng(0).integers(0, 65536, (6, 8), dtype=np.uint16)
    (tmp_path / "a").write_bytes(encoded(Image.fromarray(depth), kind))
    assert np.array_equal(read_field(tmp_path / "a"), depth)


# Manifests


def manifest(folder: Path, *lines: str) -> Source:
    folder.mkdir(exist_ok=True)
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return reader_of("manifest")(SourceSettings(root=folder / "m.csv", images=None, seed=0, size=SIZE))


HEADERS = {
    "a split in capitals": (("image,Split,b:class", "a.png,test,x"), "column 'Split': write 'split'"),
    "a split as a label": (("image,split:class", "a.png,test"), "column 'split:class': write 'split'"),
    "semicolons": (("image;label", "a.png;x"), "no column 'image'.*write commas between the cells"),
    "one image, spelt twice": (("image,label", "a.png,x", "./a.png,y"), r"row 2: ./a.png is row 1 too"),
    "an id for a class": (("image,b:boxes", 'a.png,"[[0, 0, 4, 4, 900100000000]]"'), "has class 900,"),
    "more classes than a mask has": (
        ("image,m:mask:" + "|".join(f"c{n}" for n in range(256)), "a.png,"),
        "256 classes, but mask has 255 at most",
    ),
}


@pytest.mark.parametrize(("lines", "message"), HEADERS.values(), ids=HEADERS)
def test_a_table_that_would_be_misread_is_refused(lines: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        manifest(tmp_path, *lines).columns()


def test_a_split_by_another_name_is_told_its_own(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        (tmp_path / part / "cat").mkdir(parents=True)
        picture().save(tmp_path / part / "cat/a.png")
    source = reader_of("folders")(SourceSettings(root=tmp_path, images=None, seed=0, size=SIZE))
    with pytest.raises(ValueError, match="valid: call it val"):
        source.columns()


def test_a_cell_may_hold_thousands_of_boxes(tmp_path: Path) -> None:
    boxes = str([[0, 0, 4, 4, 0]] * 20_000)
    source = manifest(tmp_path, "image,b:boxes:x", f'a.png,"{boxes}"')
    picture().save(tmp_path / "a.png")
    assert len(source.load(source.rows()[0]).labels["b"]) == 20_000


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A folder with an upright picture, the same by its tag alone, and maps of both."""
    picture().save(tmp_path / "a.png")
    tag = Image.Exif()
    tag[0x0112] = 6
    (tmp_path / "turned.jpg").write_bytes(encoded(picture(), "JPEG", exif=tag))
    Image.fromarray(np.ones((24, 32), np.uint8)).save(tmp_path / "lying.png")
    Image.fromarray(np.ones((32, 24), np.uint8)).save(tmp_path / "upright.png")
    picture().save(tmp_path / "colours.png")
    return tmp_path


def test_labels_belong_to_the_upright_picture(drawn: Path) -> None:
    header = "image,m:mask:x|y,d:field,i:instances,b:boxes:x"
    cells = 'turned.jpg,{0},{0},{0},"[[0, 20, 24, 32, 0]]"'
    source = manifest(drawn, header, cells.format("upright.png"))
    labels = source.load(source.rows()[0]).labels
    assert labels["m"].shape == (32, 24)
    assert labels["b"].tolist() == [[0, 20, 24, 32, 0]]
    source = manifest(drawn, header, cells.format("lying.png"))
    with pytest.raises(BadExample, match=r"lying.png: 32x24 pixels, but its image has 24x32; where an EXIF tag turns"):
        source.load(source.rows()[0])


QUARTERS = "red=#c81e28|green=#14a03c|blue=#1e3cb4|=#FFFFFF"


def test_colours_are_named_in_the_header(drawn: Path) -> None:
    source = manifest(drawn, f"image,parts:mask:{QUARTERS}", "a.png,colours.png")
    assert source.columns()["parts"].classes == ("red", "green", "blue")
    mask = source.load(source.rows()[0]).labels["parts"]
    assert mask[::23, ::31].tolist() == [[0, 1], [2, IGNORE]]
    assert mask.dtype == np.uint8


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_colours_are_read_from_any_mode(mode: str, drawn: Path) -> None:
    if mode == "RGBA":
        coloured = picture().convert(mode)
        coloured.putalpha(0)
    else:
        coloured = picture().convert(mode, palette=Image.Palette.ADAPTIVE, colors=4)
    coloured.save(drawn / "colours.png")
    source = manifest(drawn, f"image,parts:mask:{QUARTERS}", "a.png,colours.png")
    assert source.load(source.rows()[0]).labels["parts"][::23, ::31].tolist() == [[0, 1], [2, IGNORE]]


def test_two_colours_may_be_one_class_and_black_is_unlabelled(drawn: Path) -> None:
    image = picture()
    image.paste((0, 0, 0), (0, 0, 16, 12))
    image.save(drawn / "colours.png")
    option = "b=#14a03c|a=#1e3cb4|b=#ffffff"
    source = manifest(drawn, f"image,parts:mask:{option}", "a.png,colours.png")
    assert source.columns()["parts"].classes == ("b", "a")
    assert source.load(source.rows()[0]).labels["parts"][::23, ::31].tolist() == [[IGNORE, 0], [1, 0]]
    source = manifest(drawn, f"image,parts:mask:{option}|none=#000000", "a.png,colours.png")
    assert source.load(source.rows()[0]).labels["parts"][0, 0] == 2


def test_a_colour_without_a_name_is_counted(drawn: Path) -> None:
    source = manifest(drawn, "image,parts:mask:red=#c81e28|green=#14a03c", "a.png,colours.png")
    with pytest.raises(BadExample, match=r"colours\.png: 192 pixels are #(1e3cb4|ffffff), which .* nor 1 more colours"):
        source.load(source.rows()[0])


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("road=#80408|sky=#4682b4", "'road=#80408': write every class with its colour"),
        ("road|sky=#4682b4", "'road': write every class"),
        ("road=#804080|sky=#804080", "colour #804080 stands there twice"),
        ("=#804080", "no colour has a name"),
        ("road|road", "two classes are named 'road'"),
    ],
)
def test_colours_that_say_nothing_are_refused(option: str, why: str, drawn: Path) -> None:
    source = manifest(drawn, f"image,parts:mask:{option}", "a.png,colours.png")
    with pytest.raises(ValueError, match=rf"m\.csv: column 'parts:mask:.*{why}"):
        source.columns()


BOXES: dict[str, tuple[str, list[list[float]] | str]] = {
    "inside": ("[[1, 2, 3.5, 4, 1]]", [[1, 2, 3.5, 4, 1]]),
    "cut": ("[[-3, 2, 50, 24.5, 0]]", [[0, 2, 32, 24, 0]]),
    "none": ("[]", []),
    "outside": ("[[0, 0, 4, 4, 0], [40, 2, 50, 9, 0]]", r"the box \[40, 2, 50, 9, 0\] is outside its image of 32x24"),
    "beside": ("[[32, 0, 40, 4, 0]]", "is outside its image"),
    "zero": ("[[3, 4, 3, 9, 0]]", r"the box \[3, 4, 3, 9, 0\] has no area; write x0 < x1"),
    "swapped": ("[[9, 4, 3, 9, 0]]", "has no area"),
    "class": ("[[1, 2, 3, 4, 2]]", "whole number from 0 to 1"),
    "between": ("[[1, 2, 3, 4, 0.5]]", "whole number from 0 to 1"),
    "negative": ("[[1, 2, 3, 4, -1]]", "whole number from 0 to 1"),
}


@pytest.mark.parametrize(("cell", "wanted"), BOXES.values(), ids=BOXES)
def test_boxes_against_their_image(cell: str, wanted: list[list[float]] | str, drawn: Path) -> None:
    source = manifest(drawn, "image,b:boxes:x|y", f'a.png,"{cell}"')
    (row,) = source.rows()
    if isinstance(wanted, list):
        assert source.load(row).labels["b"].tolist() == wanted
    else:
        with pytest.raises(BadExample, match=f"^b:boxes.*{wanted}"):
            source.load(row)


@pytest.mark.parametrize(("point", "right"), [("[32, 24, 0]", True), ("[33, 4, 0]", False), ("[3, -1, 0]", False)])
def test_points_against_their_image(point: str, right: bool, drawn: Path) -> None:
    source = manifest(drawn, "image,p:points:x|y", f'a.png,"[{point}]"')
    (row,) = source.rows()
    if right:
        assert len(source.load(row).labels["p"]) == 1
    else:
        with pytest.raises(BadExample, match=r"^p:points.* is outside its image of 32x24"):
            source.load(row)


def test_an_image_listed_twice_is_refused(drawn: Path) -> None:
    source = manifest(drawn, "image,split,label", "a.png,train,x", "turned.jpg,train,y", "a.png,test,x")
    with pytest.raises(ValueError, match=r"m\.csv row 3: a\.png is row 1 too"):
        source.rows()


def test_units_of_a_field(drawn: Path) -> None:
    header = "image,a:field,b:field:0.5,c:field:0.25|px,d:field:0.5|"
    source = manifest(drawn, header, "a.png,lying.png,lying.png,lying.png,lying.png")
    found = [(column.scale, column.unit) for column in source.columns().values()]
    assert found == [(1, "m"), (0.5, "m"), (0.25, "px"), (0.5, "")]
    assert source.load(source.rows()[0]).labels["c"].max() == 0.25


# Paths that lead out


OUT = ["../secret.png", "x/../../secret.png", "{outside}/secret.png", "..", "x/../../inner2/a.png"]


@pytest.mark.parametrize("path", OUT)
def test_a_path_that_leads_out_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    picture().save(tmp_path / "secret.png")
    path = path.format(outside=tmp_path)
    with pytest.raises(BadExample, match=r"^list row 3: .* leads out of .*inner"):
        inside(tmp_path / "inner", path, "list row 3")
    source = manifest(tmp_path / "inner", "image,label", f"{path},x")
    (row,) = source.rows()
    assert row.group != content_group(tmp_path / "secret.png")
    with pytest.raises(BadExample, match=r"^image: .* leads out of"):
        source.load(row)
    picture().save(tmp_path / "inner/a.png")
    source = manifest(tmp_path / "inner", "image,m:mask:x", f"a.png,{path}")
    with pytest.raises(BadExample, match=r"^m: .* leads out of"):
        source.load(source.rows()[0])


def test_paths_within_the_folder_and_links_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "inner/x").mkdir(parents=True)
    (tmp_path / "outer").mkdir()
    picture().save(tmp_path / "outer/a.png")
    (tmp_path / "inner/link").symlink_to(tmp_path / "outer")
    for path in ("link/a.png", "x/../link/a.png", str(tmp_path / "inner/link/a.png")):
        assert find("image", path, tmp_path / "inner").samefile(tmp_path / "outer/a.png")
    assert inside(tmp_path, "a..b.png") == tmp_path / "a..b.png"


def celeba(folder: Path, name: str) -> None:
    text = (folder / "list_attr_celeba.txt").read_text().replace("000002.jpg", f"{name}.jpg")
    (folder / "list_attr_celeba.txt").write_text(text)


def fashion(folder: Path, name: str) -> None:
    (folder / "styles.csv").write_text((folder / "styles.csv").read_text().replace("\n12,", f"\n{name},"))


def gtsrb(folder: Path, name: str) -> None:
    path = folder / "GT-final_test.csv"
    path.write_text(path.read_text().replace("00000.ppm", f"{name}.ppm"))


def nyuv2(folder: Path, name: str) -> None:
    (folder / "official_train.txt").write_text(f"0\n{name}\n3\n")


@pytest.mark.parametrize("poison", [celeba, fashion, gtsrb, nyuv2])
def test_lists_that_lead_out_are_refused(poison: Callable[[Path, str], None], tmp_path: Path) -> None:
    layout = test_readers.LAYOUTS[poison.__name__]
    source = layout.source(tmp_path)
    poison(tmp_path, "../../../x/y")
    with pytest.raises(ValueError, match=r"\.\./x/y.* leads out of"):
        source.rows()


# Groups


def test_groups_are_of_the_content(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.bin" for number in range(700)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number % 251]))
    mixed: Sequence[Path | str] = [*paths, tmp_path / "none", str(paths[3]), tmp_path, "nul\0"]
    groups = content_groups(mixed)
    assert groups == [content_group(path) for path in mixed]
    assert groups[0] == groups[251] == groups[502]
    assert len(set(groups)) == 251 + 3
    assert content_groups([]) == []


def test_what_was_read_is_noted_as_it_was(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    with noting_reads() as reads:
        values = read_rgb(tmp_path / "a.png")
        values[:] = 0
    read_rgb(tmp_path / "a.png")
    ((path, noted),) = reads
    assert path == tmp_path / "a.png"
    assert np.array_equal(noted, np.array(picture()))


# Through prepare


def planted(folder: Path, *, classes: Sequence[str], splits: Sequence[str]) -> Source:
    """A manifest of noise with these classes and splits, turn by turn."""
    lines = ["image,split,kind:class:cat|dog|owl"]
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{splits[number % len(splits)]},{classes[number % len(classes)]}")
    return manifest(folder, *lines)


def test_prepare_names_file_and_row(tmp_path: Path) -> None:
    source = planted(tmp_path, classes=["cat", "dog", "owl"], splits=["train", "val", "test"])
    (tmp_path / "4.png").write_bytes(b"")
    (tmp_path / "7.png").unlink()
    with pytest.raises(ValueError) as caught:
        prepare(tmp_path / "out", source, settings({"size": SIZE}))
    message = str(caught.value)
    assert "2 of 12 rows are bad" in message
    assert "m.csv row 5: 4.png: " in message
    assert "not an image that can be read; the file is empty" in message
    assert "m.csv row 8: 7.png: image 7.png not found (looked in" in message


def test_prepare_names_a_split_without_images(tmp_path: Path) -> None:
    source = planted(tmp_path, classes=["cat", "dog", "owl"], splits=["train", "test"])
    with pytest.raises(ValueError, match=r"tiny: no val images"):
        prepare(tmp_path / "out", source, settings({"size": SIZE, "val": 0.0}))


def test_prepare_names_a_class_without_training_images(tmp_path: Path) -> None:
    source = planted(tmp_path, classes=["cat", "dog", "owl"], splits=["train", "val", "test"])
    _, said = prepare(tmp_path / "out", source, settings({"size": SIZE}))
    assert any("no training image has 2 of the 3 classes of kind: dog, owl" in line for line in said), said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(BadExample, match=r"a\.png: .*denied"):
        read_rgb(tmp_path / "a.png")
