"""machine.yaml -> where and how fast a study runs; no result depends on it."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from pipeline.config import Config
from pipeline.settings_file import Positive, Settings, read, validate

Workers = Annotated[int, Field(ge=0)]


class Machine(Settings):
    """Where it runs and how fast: nothing here can change a result, so nothing here invalidates a stage.

    jobs                networks trained at once, through Ray Tune; 1 = one after another in this process; 0 = as many
                        as fit
    workers             processes per network (DDP); 0 = in this process, no cluster; [2, 8] = as many as there is room
                        for
    gpu                 train on GPUs; by default where one is seen
    cpus_per_worker     cores that each of those processes takes, or a job's only one
    gpus_per_worker     GPUs likewise; 0.5 = two processes share one
    autoscaling         the cluster adds machines: wait for those that a job needs
    loader_workers      processes that decode images, per worker; by default 4 beside a GPU, else none
    prepare_workers     processes of `prepare` and the report, default one a core; 1 = this one; on a cluster, tasks
    threads             of a process that trains on a CPU; by default as many as it takes cores
    channels_last       the order of values in memory, which is faster on most machines
    compile             torch.compile
    max_failures        how often a job is taken up again after its processes or their machines died
    stuck_seconds       a process that has not answered for so long is taken for dead
    checkpoint_seconds  how often a long epoch leaves a checkpoint
    checkpoints         how many of them are kept
    address             a Ray cluster, `auto` on one of its machines or host:port; without one this machine is all there
                        is
    storage             checkpoints and finished jobs: a folder, or s3:// and the like; several machines need one that
                        all see
    cache               where a machine that does not see artifacts/ keeps the data that it fetches from storage
    tracking_uri        MLflow's server or database; by default mlflow.db beside machine.yaml
    mlflow_models       the report registers the best network, the smallest and the baseline as MLflow models
    mlflow_view         the report gives MLflow's run list a view of parameters against Δ_MTL
    roots               data set name -> folder, in place of the root in params.yaml
    """

    jobs: Annotated[int, Field(ge=0)] = 1
    workers: tuple[Workers, Workers] = (0, 0)
    gpu: bool | None = None
    cpus_per_worker: Positive = 1
    gpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    autoscaling: bool = False
    loader_workers: Annotated[int, Field(ge=0)] | None = None
    prepare_workers: Positive | None = None
    threads: Positive | None = None
    channels_last: bool = True
    compile: bool = False
    max_failures: Annotated[int, Field(ge=0)] = 2
    stuck_seconds: Positive = 600
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 300.0
    checkpoints: Annotated[int, Field(ge=2)] = 2
    address: str | None = None
    storage: str = "runs"
    cache: str = "~/.cache/coppice"
    tracking_uri: str | None = None
    mlflow_models: bool = True
    mlflow_view: bool = False
    roots: dict[str, str] = {}

    @field_validator("gpus_per_worker")
    @classmethod
    def _shareable(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(f"Ray gives away parts of one GPU or whole ones, not {value:g}")
        return value

    @field_validator("workers", mode="before", json_schema_input_type=Workers | tuple[Workers, Workers])
    @classmethod
    def _range(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else (value, value)

    @field_validator("workers")
    @classmethod
    def _rising(cls, value: tuple[int, int]) -> tuple[int, int]:
        low, high = value
        if low != high and not 0 < low < high:
            raise ValueError(f"a range of workers rises from 1 or more, [{low}, {high}] does not")
        return value

    @property
    def alone(self) -> bool:
        """Whether a job is one process."""
        return self.workers == (0, 0)

    @property
    def clustered(self) -> bool:
        """Whether jobs need a Ray cluster, on this machine or elsewhere."""
        return self.address is not None or not self.alone or self.jobs != 1


def load_machine(path: str | Path = "machine.yaml") -> Machine:
    """Read machine.yaml; without the file everything runs in this process, results and runs stay in this folder."""
    path = Path(path)
    machine = validate(Machine, read(path), path, []) if path.exists() else Machine()
    base = path.resolve().parent
    if re.search(r"//[^/]*:[^/]*@", machine.storage):
        raise ValueError(
            f"{path}:1 storage: it holds a password, which would stand in logs; set AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or what your store reads, in the environment"
        )
    storage = machine.storage if "://" in machine.storage else str(base / machine.storage)
    uri = machine.tracking_uri or f"sqlite:///{base / 'mlflow.db'}"
    return machine.model_copy(update={"storage": storage, "tracking_uri": uri})


def root_of(name: str, config: Config, machine: Machine, base: Path = Path()) -> Path | None:
    """Map a data set's name to its folder: machine.yaml's word first, then params.yaml's, relative to the latter."""
    root = machine.roots.get(name, config.datasets[name].root)
    try:
        return None if root is None else (base / Path(root).expanduser()).resolve()
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"datasets.{name}.root {root!r}: no folder can have this name: {error}") from None
