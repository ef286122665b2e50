"""What helps to find a bug, in one file to send along.    python -m stages.bug    (what `make bug` runs)

Leaves coppice-bug-<time>.zip: versions, this machine, settings, dvc.yaml, dvc.lock and the last logs. No data and no
results; passwords, tokens and keys are taken out.
"""

import os
import re
import time
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from pipeline.config import ROOT
from pipeline.hardware import hardware
from pipeline.run_log import last_logs, versions
from pipeline.spool import shown
from stages.session import revision, start

LOGS = 5
MOST = 1_000_000  # letters of a file, the last ones
WORDS = r"(?:token|secret|passw|credential|(?:access|api|private|account)_?key)"
SECRET = re.compile(WORDS, re.IGNORECASE)
SETTING = re.compile(rf"^(\s*[\w.-]*{WORDS}[\w.-]*\s*[:=]\s*)\S.*$", re.IGNORECASE | re.MULTILINE)


def main() -> None:
    path = Path(f"coppice-bug-{time.strftime('%Y%m%d-%H%M%S')}.zip")
    files = [Path(name) for name in ("params.yaml", "machine.yaml", "dvc.yaml", "dvc.lock")]
    about = {**versions(), "machine": hardware(), "git": revision(), "here": str(ROOT)}
    with ZipFile(path, "w", ZIP_DEFLATED) as bundle:
        bundle.writestr("about.txt", "".join(f"{name}  {value}\n" for name, value in about.items()))
        for file in [*(file for file in files if file.is_file()), *last_logs(LOGS)]:
            bundle.writestr(file.name, without_secrets(file.read_text(encoding="utf-8", errors="replace")[-MOST:]))
        names = ", ".join(bundle.namelist())
    print(f"{path}: {names}. Look through it before you send it.")


def without_secrets(text: str) -> str:
    """Map a text to one without what the environment, a URL or a setting calls a password, a token or a key."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= 8:
            text = text.replace(value, "...")
    return SETTING.sub(r"\1...", shown(text))


if __name__ == "__main__":
    start(main)
