"""Made-up rows whose reading is watched, stopped or killed, and a sum; free of torch, as what `prepare` starts is.

python -m tests.pipeline.trouble_source SETTINGS FOLDER LOG    prepares rows slowly, with two processes
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts import keeping, writing
from pipeline.config import Config
from pipeline.datasets import BadExample, Example, Row
from pipeline.machine import Machine
from pipeline.preparing import declare, prepare_dataset
from tests.pipeline.number_source import Numbers, rows


class Watched(Numbers):
    """Notes in a file which rows were loaded; finds a row bad where torch is imported, after `seconds`."""

    def __init__(self, rows: Sequence[Row], log: Path, *, bad: Sequence[str] = (), seconds: float = 0.0) -> None:
        super().__init__(rows, bad=bad)
        self.log, self.seconds = log, seconds

    def load(self, row: Row) -> Example:
        with self.log.open("a") as file:
            file.write(f"{row.id}\n")
        time.sleep(self.seconds)
        if "torch" in sys.modules and os.environ.get("WITHOUT_TORCH"):
            raise BadExample("torch is imported")
        return super().load(row)


class Deadly(Watched):
    """Kills the process that loads row `killer`, the first `times` times, or stops it as Ctrl-C does."""

    killer = "100"
    times = 0
    stops = False

    def load(self, row: Row) -> Example:
        example = super().load(row)
        if row.id == self.killer and loaded(self.log).count(self.killer) <= self.times:
            if self.stops:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGKILL)
        return example


def loaded(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def plus(shared: int, item: int) -> int:
    if shared + item == 0:
        raise BadExample("a sum of 0")
    return shared + item


def main(settings: str, folder: str, log: str) -> None:
    config, base = Config.model_validate_json(Path(settings).read_text()), Path(folder)
    source = Watched(rows(200), Path(log), seconds=0.01)
    with keeping("prepare", base) as kept, writing("prepare", base) as draft:
        machine = Machine(prepare_workers=2)
        prepare_dataset(declare("tiny", config, source), source, config, machine, draft, print, kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
