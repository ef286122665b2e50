"""One task of a bundle as a bundle of its own.    python -m stages.only <bundle> <task> <out>    (seconds)

It holds the weights that the task uses and no others, and predicts what the whole does.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from models.bundle import load, save
from pipeline.about import keep_task
from stages.session import start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m stages.only", description="Cut one task out of a trained network.")
    parser.add_argument("bundle", type=Path, help="a folder with spec.json and weights.safetensors")
    parser.add_argument("task", help="the task to keep")
    parser.add_argument("out", type=Path, help="the folder to make")
    asked = parser.parse_args(arguments)
    if asked.out.exists():
        raise ValueError(f"{asked.out} is there already: name a new folder")
    whole = load(asked.bundle)
    alone = whole.only(asked.task)
    save(alone.network, asked.out)
    keep_task(asked.bundle, asked.task, asked.out)
    params = f"{alone.network.num_params():,} of {whole.network.num_params():,} parameters"
    print(f"only: {asked.task}, {params} -> {asked.out}")


if __name__ == "__main__":
    start(main)
