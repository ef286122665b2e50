"""`dvc repro` -> what its stages print, and which of them ran, were cached or failed; DVC's own words stay out.

DVC's warnings and errors are passed on, but for the one that repeats that a stage has failed.
"""

import codecs
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from threading import Thread

from pipeline.config import ROOT
from pipeline.terminal import AT_END, ERASE, at_terminal

RUNS = re.compile(r"Running stage '(\w+)':")
UNCHANGED = re.compile(r"Stage '(\w+)' didn't change, skipping")
CACHED = re.compile(r"Stage '(\w+)' is cached - skipping run.*")
FAILED = re.compile(r".*failed to run: .*\bstages\.(\w+), exited with (-?\d+)")
INTERRUPTED = 252  # the code that DVC leaves with after Ctrl-C
CHATTER = re.compile(
    r"|> python -m stages\.\w+|(?:Updating|Generating) lock file '.*'|To track the changes with git, run:"
    r"|To enable auto staging, run:|\tgit add .*|\tdvc config core\.autostage true|Use `dvc push` to send.*"
    r"|Data and pipelines are up to date\."
)


@dataclass
class Heard:
    """What DVC said of its stages and left with; `failed` is the stage that failed, and its code.

    A stage that was ended by a signal has 128 + the signal's number.
    """

    ran: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    failed: tuple[str, int] | None = None
    code: int = 0

    def hear(self, line: str) -> bool:
        """Take a line; give whether it is DVC's own, of no use to a reader."""
        line = line.rstrip("\r\n")
        for pattern, stages in ((RUNS, self.ran), (UNCHANGED, self.unchanged), (CACHED, self.cached)):
            if found := pattern.fullmatch(line):
                stages.append(found[1])
                return True
        if found := FAILED.fullmatch(line):
            code = int(found[2])
            # Some shells end a stage that a signal ended by that signal themselves, others give 128 + its number.
            self.failed = found[1], 128 - code if code < 0 else code
            return True
        return CHATTER.fullmatch(line) is not None


def reproduce(*, verbose: bool = False, command: tuple[str, ...] = (sys.executable, "-m", "dvc", "repro")) -> Heard:
    """Run the chain of this checkout, showing what its stages print; `verbose` lets DVC's own words pass too."""
    heard, environment = Heard(), {**os.environ, AT_END: str(int(at_terminal()))}
    pipe = subprocess.PIPE

    def pass_on(stream: BufferedReader, errors: bool) -> None:
        for piece in pieces(stream):
            if not heard.hear(piece) or verbose:
                target = sys.stderr if errors else sys.stdout
                target.write(piece)
                target.flush()

    with _own_ctrl_c(), subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe) as dvc:
        threads = [Thread(target=pass_on, args=pair) for pair in ((dvc.stdout, False), (dvc.stderr, True))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        heard.code = dvc.wait()
    return heard


def pieces(stream: BufferedReader) -> Iterator[str]:
    """The lines of a stream as they come, and the passing lines of `pipeline.terminal`, which have no end."""
    decoder, held = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    while data := stream.read1(1 << 16):
        *lines, held = (held + decoder.decode(data)).split("\n")
        for line in lines:
            yield from _parted(f"{line}\n")
        if held.startswith("\r") and held.endswith(ERASE):
            yield held
            held = ""
    if held:
        yield held


def _parted(line: str) -> Iterator[str]:
    """A line, and before it what it was to take the place of."""
    passing, mark, rest = line.rpartition(ERASE) if line.startswith("\r") else ("", "", line)
    if mark:
        yield passing + mark
    yield rest


@contextmanager
def _own_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end what the chain is at, which says so and is waited for, and not this process."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
