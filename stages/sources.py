"""What lies in the data folders -> one digest a data set.    python -m stages.sources    (a second)

Runs at every `dvc repro`; `prepare` runs again where a digest has changed. Leaves artifacts/sources/files.json.
"""

from pipeline.artifacts import write_json, writing
from pipeline.config import load
from pipeline.datasets import code_of
from pipeline.machine import load_machine, root_of
from pipeline.source_state import state_of
from stages.session import start


def main() -> None:
    config, machine = load(), load_machine()
    states = {
        name: state_of(root_of(name, config, machine), code_of(dataset.reader))
        for name, dataset in config.datasets.items()
    }
    with writing("sources") as folder:
        write_json(folder / "files.json", states)


if __name__ == "__main__":
    start(main)
