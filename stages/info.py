"""What a bundle is.    python -m stages.info <bundle> [--card README.md]    (a few seconds)

Prints what its tasks share, its parameters and multiply-adds, what it was measured at, and what it learned from. With
--card the same is written as a model card in Markdown, with the head that the Hugging Face Hub reads.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from pipeline.model_card import card
from stages.session import start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m stages.info", description="Say what a trained network is.")
    parser.add_argument("bundle", type=Path, help="a folder with spec.json and weights.safetensors")
    parser.add_argument("--card", type=Path, help="write a model card here, such as <bundle>/README.md")
    asked = parser.parse_args(arguments)
    if asked.card is None:
        print(card(asked.bundle, head=False), end="")
        return
    if not asked.card.parent.is_dir():
        raise ValueError(f"--card {asked.card}: there is no folder {asked.card.parent}")
    asked.card.write_text(card(asked.bundle, head=True), encoding="utf-8")
    print(f"info: {asked.bundle} -> {asked.card}")


if __name__ == "__main__":
    start(main)
