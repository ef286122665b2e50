"""Public data layouts -> Arrow shards.    python -m stages.prepare    (seconds for `scenes`)

Checks the whole study first: folders, columns, task kinds and their options, the backbone, the budgets. Leaves
artifacts/prepare/<data set>/{train,val,test}/*.arrow and manifest.json. Stopped, it keeps what is finished in
artifacts/.prepare-kept and goes on from there; where machine.yaml names a cluster's address, all of it works.
"""

from pipeline.artifacts import keeping, write_manifests, writing
from pipeline.preparing import declare, open_source, prepare_dataset
from stages.session import session, start


def main() -> None:
    # Each process that encodes images imports this file: it needs no torch.
    from pipeline.preflight import check_study

    with session("prepare") as at:
        sources = {name: open_source(name, at.config, at.machine) for name in at.config.datasets}
        declared = {name: declare(name, at.config, source) for name, source in sources.items()}
        check_study(at.config, declared)
        with keeping("prepare") as kept, writing("prepare") as folder:
            manifests = [
                prepare_dataset(declared[name], source, at.config, at.machine, folder, at.say, kept)
                for name, source in sources.items()
            ]
            write_manifests(folder, manifests)
        for manifest in manifests:
            at.run.log({f"images/{manifest.name}/{split}": count for split, count in manifest.counts.items()}, 0)


if __name__ == "__main__":
    start(main)
