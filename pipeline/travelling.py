"""What of a checkout goes to a cluster: its sources and settings, never results, keys or an environment."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

LIMIT_MB = 50
STAYS = (
    *(".git", ".venv", "artifacts", "runs", "mlartifacts", "mlruns", "machine.yaml", "cluster.yaml", "mlflow.db*"),
    *(".ray-*", "check", ".check.*"),
)
STAYS_BELOW = (".dvc/cache", ".dvc/tmp", ".dvc/config.local")  # the last holds keys of DVC remotes
STAYS_ANYWHERE = (".env", "*.egg-info", "__pycache__", ".pytest_cache", ".ruff_cache")


def travelling(root: Path) -> list[Path]:
    """Map a checkout to the files that travel, by their paths in it: what git has or does not ignore, and dvc.lock.

    Outside git it is everything but results, caches and keys. ValueError where git does not tell, or above 50 MB.
    """
    named = _of_git(root) or list(_walk(root, root))
    if (root / "dvc.lock").exists():
        named.append(Path("dvc.lock"))
    files = sorted({path for path in named if (root / path).is_file() and not _stays(path)})
    size = sum((root / path).stat().st_size for path in files)
    if size > LIMIT_MB * 1e6:
        raise ValueError(_too_much(root, files, size))
    return files


def pack(root: Path, files: Sequence[Path], machine: Path, folder: Path) -> str:
    """Copy files to a folder, and the cluster's settings as its machine.yaml; give a digest of all but dvc.lock."""
    for path in files:
        copy = folder / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, copy)
    shutil.copyfile(machine, folder / "machine.yaml")
    return contents_of(folder, files, folder / "machine.yaml")


def contents_of(root: Path, files: Sequence[Path], machine: Path) -> str:
    """Map what decides what runs, files and the cluster's settings but not dvc.lock, to a digest."""
    said = hashlib.sha256(machine.read_bytes())
    for path in files:
        if path.name != "dvc.lock":
            said.update(f"\0{path.as_posix()}\0".encode() + (root / path).read_bytes())
    return said.hexdigest()


def _of_git(root: Path) -> list[Path]:
    """What git has or does not ignore; nothing where it has no say in this folder."""
    asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        code, trouble, listed = 127, str(error), ""
    else:
        code, trouble, listed = done.returncode, done.stderr.strip(), done.stdout
    if code and any((folder / ".git").exists() for folder in (root, *root.resolve().parents)):
        # What it ignores may hold keys: nothing is sent on a guess.
        raise ValueError(f"git does not tell which files of {root} it ignores, so none is sent: {trouble}")
    files = [Path(name) for name in listed.split("\0") if name]
    return files if (root / ".git").exists() or Path("params.yaml") in files else []


def _walk(root: Path, folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path).relative_to(root)
        if entry.is_dir(follow_symlinks=False):
            if not _stays(path):
                yield from _walk(root, Path(entry.path))
        else:
            yield path


def _stays(path: Path) -> bool:
    text = path.as_posix()
    below = any(text == name or text.startswith(name + "/") for name in STAYS_BELOW)
    top = any(fnmatch(path.parts[0], name) for name in STAYS)
    return below or top or any(fnmatch(part, name) for part in path.parts for name in STAYS_ANYWHERE)


def _too_much(root: Path, files: Sequence[Path], size: int) -> str:
    largest = sorted(files, key=lambda path: -(root / path).stat().st_size)[:5]
    lines = [f"  {(root / path).stat().st_size / 1e6:.1f} MB  {path}" for path in largest]
    return (
        f"{size / 1e6:.0f} MB would be sent to the cluster; {LIMIT_MB} is the most. Name data in .gitignore, put them "
        "where the cluster sees them and say where under roots in cluster.yaml. The largest:\n" + "\n".join(lines)
    )
