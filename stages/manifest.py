"""A tree in a known layout -> a manifest of your own.    python -m stages.manifest [READER] FOLDER --out FILE.csv

READER is a layout's name, as in params.yaml (imagefolder is folders); without it, the one whose marks the folder bears.
Reads every image once: a few minutes for 100,000 on one core. Leaves FILE.csv, and FILE_files/ beside it for what no
file of the folder holds as a manifest wants it. See docs/own-data.md.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import READERS
from pipeline.datasets import SourceSettings, detect, reader_of
from pipeline.manifest_making import make_manifest
from pipeline.settings_file import nearest
from stages.session import start

OTHER_NAMES = {"imagefolder": "folders"}


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parse(arguments)
    reader = _reader(asked.reader, asked.folder)
    root = Path(os.path.abspath(asked.folder))
    source = reader_of(reader)(SourceSettings(root=root, images=None, seed=0, size=(asked.size[0], asked.size[1])))
    rows, files = make_manifest(
        source, asked.out, workers=asked.workers or os.cpu_count() or 1, say=print, on_bad=asked.on_bad
    )
    beside = f", and {files} files in {asked.out.with_name(f'{asked.out.stem}_files')}" if files else ""
    print(f"manifest: {rows} rows of {reader} -> {asked.out}{beside}\nlicence: {source.licence}")


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m stages.manifest", description="Make a manifest of a data set.")
    parser.add_argument("reader", nargs="?", help="the layout; left out, it is told by the folder's marks")
    parser.add_argument("folder", type=Path, help="what `root` would name in params.yaml")
    parser.add_argument("--out", type=Path, required=True, help="the csv file, in a folder above the images")
    parser.add_argument("--on-bad", choices=("fail", "skip"), default="fail", help="rows that can't be read")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"),
        help="for readers that make their maps at the stored size, as nyuv2 does (default: 240 320)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _reader(name: str | None, folder: Path) -> str:
    if not folder.exists():
        raise ValueError(f"there is no folder {folder}")
    if name is None:
        found = detect(folder)
        if len(found) != 1:
            known = f"marks of {' and '.join(found)}" if found else "no layout's marks"
            raise ValueError(f"{folder} bears {known}; name the reader: {', '.join((*READERS, *OTHER_NAMES))}")
        return found[0]
    name = OTHER_NAMES.get(name, name)
    if ":" not in name and name not in READERS:
        raise ValueError(f"no reader {name!r}. {nearest(name, READERS)}")
    return name


if __name__ == "__main__":
    start(main)
