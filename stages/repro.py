"""The whole chain on one command.    python -m stages.repro [--preset NAME --root FOLDER]    (what `make repro` runs)

With a preset its settings become params.yaml and the data set's folder goes to machine.yaml; then `dvc repro` runs what
is out of date. Results of earlier settings stay in DVC's cache: going back to them runs nothing anew. Leaves with the
code of the stage that failed: 2 for what the user can mend, 1 for anything else, 130 after Ctrl-C.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.config import ROOT, Config, load
from pipeline.dvc_output import INTERRUPTED, Heard, reproduce
from pipeline.hardware import hardware
from pipeline.machine import Machine, load_machine
from pipeline.plan_text import bytes_text, time_text
from pipeline.presets import adopt_preset
from pipeline.run_log import versions
from pipeline.terminal import PLAN_UNTOLD, labelled
from stages.session import revision, start, verbose

PAGE = "artifacts/report/index.html"
COMMIT_FIRST = ". It needs one commit first: git init && git add -A && git commit -m start"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.repro", description="Run the whole chain.")
    parser.add_argument("--preset", help="a file of presets/, without .yaml")
    parser.add_argument("--root", type=Path, help="the folder of the preset's data set")
    arguments = parser.parse_args()
    if arguments.preset:
        said = adopt_preset(arguments.preset, arguments.root)
        print(labelled("settings", said.removeprefix("settings: ")))
    elif arguments.root:
        raise ValueError("--root says where a preset's data lie: give --preset too")
    config, machine, began = load(), load_machine(), time.monotonic()
    print(labelled("preflight", _preflight()), flush=True)
    if not (ROOT / ".git").exists():
        subprocess.run(["dvc", "config", "--local", "core.no_scm", "true"], cwd=ROOT, check=True)
    with _cluster(machine), _plan_untold():
        heard = reproduce(verbose=verbose())
    if heard.code:
        sys.exit(_left(heard))
    seconds = time.monotonic() - began
    run = [stage for stage in heard.ran if stage != "sources"]
    if not run and not heard.cached:
        print(f"nothing to do: every stage is up to date ({seconds:.0f} s)")
    print(labelled("next", _next(config)))
    if run or heard.cached:
        parts = {"run": len(run), "from DVC's cache": len(heard.cached), "up to date": len(heard.unchanged)}
        counts = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
        print(labelled("done", f"{time_text(seconds)} · stages: {counts}"))


def _preflight() -> str:
    """What the chain is about to run on."""
    known = versions()
    free = bytes_text(shutil.disk_usage(ROOT).free)
    at = revision()
    code = "no git commit" if at == "none" else f"git {at.replace('-dirty', ', changed')}"
    return f"python {known['python']} · torch {known['torch']} · {hardware()} · {free} free · {code}"


def _next(config: Config) -> str:
    """What to look at and what to try."""
    if config.taps.lams:
        example, what = f"taps.lams=[{config.taps.lams[-1] / 2:g}]", "another λ; trains TAPS alone"
    else:
        example, what = "trees.budgets=[1.5x]", "another budget; trains its tree alone"
    activate = Path(sys.prefix, "bin/activate")
    shown = activate.relative_to(ROOT) if activate.is_relative_to(ROOT) else activate
    rows = [
        (f"open {PAGE}", "everything on one page"),
        ("make ui", "all runs in MLflow, http://127.0.0.1:5000"),
        *([] if os.environ.get("VIRTUAL_ENV") else [(f". {shown}", "once in a terminal, for dvc and python")]),
        (f"dvc exp run -S '{example}'", what + (COMMIT_FIRST if revision() == "none" else "")),
        ("docs/quickstart.md", "how to read the page, use what was trained, take your own data"),
    ]
    width = max(len(command) for command, _ in rows)
    return "\n".join(f"{command:<{width}}  {words}" for command, words in rows)


def _left(heard: Heard) -> int:
    """The code to leave with; what a stage said itself is not said again."""
    if heard.failed is None:
        return 130 if heard.code == INTERRUPTED else 1
    stage, code = heard.failed
    number = code - 128
    if code == 130 or number <= 0:
        return code
    known = {item.value: item.name for item in signal.Signals}
    why = "; did the machine run out of memory?" if number == signal.SIGKILL else ""
    killed = f"{stage} was ended by {known.get(number, f'signal {number}')}{why or '.'}"
    print(f"error: {killed} The same command goes on from its last checkpoint", file=sys.stderr)
    return code


@contextmanager
def _plan_untold() -> Iterator[None]:
    """Leave a file for the first stage that trains: it then tells the plan and takes the file away."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "untold"
        path.touch()
        os.environ[PLAN_UNTOLD] = str(path)
        try:
            yield
        finally:
            del os.environ[PLAN_UNTOLD]


def _cluster(machine: Machine) -> AbstractContextManager[None]:
    """One cluster for all stages, where machine.yaml asks for one."""
    if not machine.clustered:
        return nullcontext()
    from pipeline.runner import kept_cluster  # brings torch and Ray, which a study in this process starts without

    return kept_cluster(machine)


if __name__ == "__main__":
    start(main, logged=True)
