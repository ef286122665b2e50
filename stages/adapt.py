"""Adapt the network with experts to new data sets, in every mode, and one after another.    python -m stages.adapt

Leaves artifacts/adapt/bundle/ (the network of the moe stage, and per new data set its own router, experts and head),
<run>/ (the network of every mode and task, pruned as it is), trials.parquet (every metric of every epoch) and
metrics.json: what each mode reached, what it trained and what is left of the network; and what learning one data set
after another did to those before.
"""

from pipeline.artifacts import write_json, writing
from stages.session import session, start


def main() -> None:
    with session("adapt") as at:
        if at.config.adapt.tasks and at.config.moe.lams:
            from stages.adapt_study import train_study  # brings torch, which other studies need not wait for

            train_study(at)
            return
        with writing("adapt") as folder:
            write_json(folder / "metrics.json", {"runs": []})
        at.result("not in this study: adapt.tasks or moe.lams is empty")


if __name__ == "__main__":
    start(main, logged=True)
