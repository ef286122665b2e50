"""A study to a Ray cluster and its results back.    python -m stages.submit --to http://head:8265    (`make submit`)

Sends this checkout's sources and settings (seconds), shows the job's log until it ends, brings back dvc.lock and
artifacts/. Leaving with Ctrl-C leaves the job running; the same command follows it again, `--fetch` (`make fetch`)
brings back what it has finished so far. cluster.yaml is the machine.yaml that holds there, see docs/cluster.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import ROOT, load
from pipeline.job_server import ENDED, job_server, jobs, status
from pipeline.machine import Machine, load_machine
from pipeline.presets import adopt_preset
from pipeline.settings_file import nearest, read
from pipeline.storage import shown
from pipeline.study_folder import Stages, StudyFolder, stages_of, with_stages
from pipeline.travelling import contents_of, pack, travelling
from stages.session import start

CLUSTER = Path("cluster.yaml")
RAY = str(Path(sys.executable).with_name("ray"))
DVC = [sys.executable, "-m", "dvc"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.submit", description="Run the whole chain on a cluster.")
    parser.add_argument("--to", default=os.environ.get("RAY_API_SERVER_ADDRESS"), help="http://head:8265")
    parser.add_argument("--preset", help="a file of presets/, without .yaml")
    parser.add_argument("--fetch", action="store_true", help="only bring back what is finished")
    parser.add_argument("--only", nargs="*", default=[], metavar="STAGE", help="bring back these stages' results alone")
    arguments = parser.parse_args()
    machine = load_cluster()
    if arguments.fetch:
        fetch(StudyFolder(machine.storage, load().experiment), arguments.only)
        return
    url = job_server(arguments.to)
    there = jobs(url)
    if arguments.preset:
        print(adopt_preset(arguments.preset, None))
    study = StudyFolder(machine.storage, load().experiment)
    job = send(url, study, there)
    ended = follow(url, job)
    if ended != "SUCCEEDED":
        print(f"the job {ended.lower()}; the same command goes on from what is finished", file=sys.stderr, flush=True)
    fetch(study, arguments.only)
    sys.exit(ended != "SUCCEEDED")


def load_cluster() -> Machine:
    """Read cluster.yaml; ValueError where a cluster could not run by it, or what it leaves would be lost."""
    if not CLUSTER.exists():
        raise ValueError("no cluster.yaml, the machine.yaml of the cluster: docs/cluster.md shows one")
    machine, said = load_machine(CLUSTER), read(CLUSTER) or {}
    if machine.address != "auto":
        raise ValueError("cluster.yaml address: auto is what a job that runs on the cluster finds it by")
    folder = said.get("storage", "")
    if "://" not in folder and not (Path(folder).is_absolute() and Path(folder).is_dir()):
        raise ValueError(
            f"cluster.yaml storage: {folder or 'missing'}; a folder that is there under the same path on this machine "
            "and on all of the cluster's, or s3:// and the like"
        )
    uri = said.get("tracking_uri", "")
    if not uri or (uri.startswith("sqlite:///") and not uri.startswith("sqlite:////")):
        raise ValueError(
            "cluster.yaml tracking_uri: the address of an MLflow server, or sqlite:////… on a shared disk; "
            "a database in the job's own folder ends with the job"
        )
    if machine.gpu is None:
        raise ValueError("cluster.yaml gpu: true or false; the head, which often has none, cannot tell for the others")
    return machine


def send(url: str, study: StudyFolder, there: Sequence[dict]) -> str:
    """Submit the study, or find it running already; give the job's name."""
    files = travelling(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        contents = pack(ROOT, files, CLUSTER, Path(folder))
        for job in there:
            about = job.get("metadata") or {}
            if about.get("study") == study.name and job["status"] not in ENDED:
                if about.get("contents") == contents:
                    print(f"{job['submission_id']} runs there already")
                    return job["submission_id"]
                raise ValueError(
                    f"{study.experiment} runs there already, as {job['submission_id']}, with other settings or code: "
                    f"wait for it, stop it ({_ray(url, 'stop', job['submission_id'])}), or name another experiment"
                )
        name = f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        with _storage(study):
            study.notes.write("job", json.dumps({"job": name, "contents": contents}).encode())
        kilobytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e3
        print(f"sending {len(files) + 1} files, {kilobytes:,.0f} KB, as {name}", flush=True)
        about = json.dumps({"study": study.name, "contents": contents})
        sent = subprocess.run(
            [
                *(RAY, "job", "submit", "--no-wait", "--address", url),
                *("--submission-id", name, "--working-dir", folder, "--metadata-json", about),
                *("--", "python", "-m", "stages.submitted", "--job", name),
            ],
            # Ray would leave out what .gitignore names, machine.yaml among it; what travels is chosen already.
            env={**os.environ, "RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if sent.returncode:
        raise ValueError(f"Ray did not take the job:\n{sent.stdout}{sent.stderr}")
    return name


def follow(url: str, job: str) -> str:
    """Show a job's log until it ends; give how it ended. Ctrl-C leaves it running and says how to find it again."""
    try:
        subprocess.run([RAY, *_words(url, "logs", job), "--follow"], check=False)
    except KeyboardInterrupt:
        _leave(url, job, 130)
    ended = status(url, job)
    if ended not in ENDED:
        print(f"the log broke off; the job is {ended.lower()}", file=sys.stderr)
        _leave(url, job, 1)
    return ended


def fetch(study: StudyFolder, only: Sequence[str]) -> None:
    """Bring back what the study has finished: dvc.lock, DVC's cache and artifacts/, as if it had run here."""
    with _storage(study):
        lock, note = study.lock, study.notes.read("kept")
    if lock is None:
        raise ValueError(f"nothing of {study.experiment} is finished yet (looked in {study.notes.path})")
    stages, chain = stages_of(lock, f"{study.notes.path}/dvc.lock"), read(ROOT / "dvc.yaml")["stages"]
    known = [stage for stage in stages if stage in chain]
    for stage in only:
        if stage not in known:
            raise ValueError(f"ONLY={stage}: not a finished stage of {study.experiment}. {nearest(stage, known)}")
    if not (ROOT / ".git").exists():
        _dvc("config", "--local", "core.no_scm", "true")
    cache = Path(_dvc("cache", "dir").strip())
    with _storage(study):
        whole = [stage for stage in study.bring(lock, cache, only) if stage in known]
    if whole:
        _put_in_place({stage: stages[stage] for stage in whole}, lock)
    stale = [] if only else _stale()
    done = [stage for stage in whole if stage not in stale]
    print(f"here: {', '.join(done) or 'nothing yet'}" + (f"; not run yet: {', '.join(stale)}" if stale else ""))
    _say_if_of_others(note)
    if "report" in done:
        print(f"report: {ROOT / 'artifacts/report/index.html'}")


def _put_in_place(stages: Stages, brought: bytes) -> None:
    """Enter stages in dvc.lock and have DVC put their results in place; where it won't, dvc.lock is as it was."""
    path = ROOT / "dvc.lock"
    before = path.read_bytes() if path.exists() else None
    if before is None:
        after = brought
    else:
        earlier = stages_of(before, str(path))
        after = with_stages(before, {name: stage for name, stage in stages.items() if stage != earlier.get(name)})
    _replace(path, after)
    try:
        _dvc("checkout", *stages)
    except BaseException as error:
        _replace(path, before)
        if isinstance(error, ValueError):
            raise ValueError(f"{error}\nMove away what is in the way, then make fetch; nothing is lost") from None
        raise


def _replace(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink()
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    draft.write_bytes(data)
    draft.replace(path)


def _say_if_of_others(note: bytes | None) -> None:
    """One line where what was brought is of other sources or settings than are here."""
    told = json.loads(note or b"{}")
    if told and told["contents"] != contents_of(ROOT, travelling(ROOT), CLUSTER):
        print(f"{told['job']} brought these about, with other sources or settings (cluster.yaml counts) than are here")


def _stale() -> list[str]:
    """The stages whose results are not those of this checkout's sources and settings."""
    return [stage for stage, changes in json.loads(_dvc("status", "--json")).items() if changes != ["always changed"]]


def _dvc(*arguments: str) -> str:
    done = subprocess.run([*DVC, *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"dvc {arguments[0]}: {done.stderr.strip().removeprefix('ERROR: ')}")
    return done.stdout


@contextmanager
def _storage(study: StudyFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"cluster.yaml storage {shown(study.storage)}: {error}") from error


def _words(url: str, verb: str, job: str) -> list[str]:
    return ["job", verb, "--address", url, job]


def _ray(url: str, verb: str, job: str) -> str:
    return " ".join(["ray", *_words(url, verb, job)])


def _leave(url: str, job: str, code: int) -> None:
    print(
        f"\n{job} goes on there. The same command follows it again and brings its results back; or\n"
        f"  {_ray(url, 'logs', job)} --follow\n  {_ray(url, 'stop', job)}\n  make fetch    # what is finished so far",
        file=sys.stderr,
    )
    sys.exit(code)


if __name__ == "__main__":
    start(main)
