"""Public data layouts -> Arrow shards.    python -m stages.prepare    (seconds for `scenes`)

Checks the whole study first: folders, columns, task kinds and their options, the backbone, the budgets. Leaves
artifacts/prepare/<data set>/{train,val,test}/*.arrow and manifest.json. Stopped, it keeps what is finished in
artifacts/.prepare-kept and goes on from there; a cluster's machines all work where all of them see
the data folders, else this one alone.
"""

from pipeline.artifacts import DatasetManifest, keeping, write_manifests, writing
from pipeline.preparing import declare, open_source, prepare_dataset
from stages.session import session, start


def main() -> None:
    # Each process that encodes images imports this file: it needs no torch.
    from pipeline.preflight import check_study, remarks

    with session("prepare") as at:
        sources = {name: open_source(name, at.config, at.machine) for name in at.config.datasets}
        declared = {name: declare(name, at.config, source) for name, source in sources.items()}
        check_study(at.config, declared)
        for remark in remarks(at.config):
            at.say(remark)
        with keeping("prepare") as kept, writing("prepare") as folder:
            manifests = [
                prepare_dataset(declared[name], source, at.config, at.machine, folder, at.say, kept, at.progress)
                for name, source in sources.items()
            ]
            write_manifests(folder, manifests)
        at.result("\n".join(map(_in_words, manifests)))
        for manifest in manifests:
            at.run.log({f"images/{manifest.name}/{split}": count for split, count in manifest.counts.items()}, 0)


def _in_words(manifest: DatasetManifest) -> str:
    height, width = manifest.size
    counts = " / ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    skipped = f", {len(manifest.skipped)} skipped" if manifest.skipped else ""
    return f"{manifest.name}: {counts} images of {height} × {width}{skipped}"


if __name__ == "__main__":
    start(main, logged=True)
