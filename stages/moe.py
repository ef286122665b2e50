"""Train a network with experts on all data sets at once, over λ, and its baselines.    python -m stages.moe

Leaves artifacts/moe/<name>/ (a bundle each), trials.parquet (every metric of every epoch) and metrics.json: what each
network reached, how its routers use the experts, and what that use tells of the data set.
"""

from pipeline.artifacts import write_json, writing
from stages.session import session, start


def main() -> None:
    with session("moe") as at:
        if at.config.moe.lams:
            from stages.moe_study import train_study  # brings torch, which other studies need not wait for

            train_study(at)
            return
        with writing("moe") as folder:
            write_json(folder / "metrics.json", {"runs": []})
        at.result("not in this study: moe.lams names no λ")


if __name__ == "__main__":
    start(main, logged=True)
