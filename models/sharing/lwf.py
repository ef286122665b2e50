"""Learning without Forgetting: all of a network learns new tasks, and is held to its old outputs on their images.

B images, C classes, T temperature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from models.experts import key
from models.sharing.base import SharedModel
from models.sharing.moe import MoeModel
from models.spec import ModelSpec
from models.tasks import Task


class LwfModel(SharedModel):
    """A network with experts, the student, and the frozen one that it was before, the teacher (Li and Hoiem 2016).

    Settings: those of "moe"; `old`, the data sets of the old tasks, which come before the new ones; `temperature`.
    Old tasks need no images: in training on a new task's, the student's old heads, behind their own data sets' routers,
    are held to what the teacher gives there. It predicts without the teacher, and is what a bundle keeps.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        settings = dict(spec.settings)
        old, temperature = settings.pop("old", ()), settings.pop("temperature", 2.0)
        assert isinstance(old, tuple)
        assert isinstance(temperature, int | float)
        self.old, self.temperature = old, temperature
        before = tuple(task for task in spec.tasks if task.dataset in old)
        if not before or before == spec.tasks or before != spec.tasks[: len(before)]:
            raise ValueError(
                f"old {list(old)}: name the data sets of the first tasks, and not of all; the tasks are "
                + ", ".join(f"{task.name} on {task.dataset}" for task in spec.tasks)
            )
        self.old_tasks = tuple(task.name for task in before)
        plain = replace(spec, strategy="moe", settings=tuple(sorted(settings.items())))
        self.student = MoeModel(plain)
        backbone = replace(spec.backbone, pretrained=False)
        self.teacher = MoeModel(replace(plain, backbone=backbone, tasks=before)).requires_grad_(False).eval()
        self.compared: dict[str, tuple[Tensor, Tensor]] = {}  # raw outputs of the last training batch, for the penalty

    def paths(self, images: Tensor, names: Sequence[str]) -> dict[str, list[Tensor]]:
        return self.student.paths(images, names)

    def forward(self, images: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Map images to the student's raw output of each named task; in training on a new one, of the old ones too.

        They are among what is returned, so that whoever averages gradients over ranks knows that they take part.
        """
        names = self.spec.task_names if tasks is None else tuple(tasks)
        if not self.training or set(names) <= set(self.old_tasks):
            return self.student(images, names)
        outputs = self.student(images, tuple(dict.fromkeys((*names, *self.old_tasks))))
        with torch.no_grad():
            taught = self.teacher(images)
        self.compared = {name: (outputs[name], taught[name]) for name in self.old_tasks}
        return outputs

    def penalty(self, tasks: Sequence[str]) -> Tensor:
        """The sum over old tasks of how far the last training batch's outputs are from the teacher's (Eq. 2 and 3).

        The paper has classifiers only, see `distillation_loss` for the rest.
        """
        terms = [distillation_loss(self.tasks[name], *pair, self.temperature) for name, pair in self.compared.items()]
        self.compared = {}
        return torch.stack(terms).sum() if terms else super().penalty(tasks)

    def finish_step(self) -> None:
        """Let the student's estimates take in a step, but not what old routers made of a new data set's images."""
        for layer in self.student.layers.values():
            layer.tally_ME[[name in self.old for name in layer.numbers]] = 0
        self.student.finish_step()

    def train(self, mode: bool = True) -> "LwfModel":
        super().train(mode)
        self.teacher.eval()
        # What an old head knows of its own data set's images, such as batch statistics, new images must not change.
        for place in range(len(self.old_tasks)):
            self.student.heads[place].eval()
        return self

    def num_params(self) -> int:
        """The student's; the teacher predicts nothing."""
        return self.student.num_params()

    def start_from(self, members: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Fill student and teacher from "network", the one before: of strategy "moe" or "lwf", for the old tasks.

        The new tasks' routers, estimates and heads stay as they are. ValueError where it is another network.
        """
        ((kind, state),) = members.items()
        assert kind == "network", "Learning without Forgetting starts from a whole network"
        student = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
        for network in (self.teacher, self.student):
            try:
                missing, wrong = network.load_state_dict(student or state, strict=False)
            except RuntimeError as error:
                raise ValueError(f"the network to start from is another: {error}") from None
            if faults := [*wrong, *(name for name in missing if not self._is_new(name))]:
                raise ValueError(
                    f"the network to start from is not that of {', '.join(self.old_tasks)}: {', '.join(faults[:3])}"
                )

    def _is_new(self, tensor: str) -> bool:
        """Whether a tensor of the student's belongs to a new task or its data set alone."""
        new = {key(task.dataset) for task in self.spec.tasks if task.name not in self.old_tasks}
        part, *rest = tensor.split(".")
        return int(rest[0]) >= len(self.old_tasks) if part == "heads" else not new.isdisjoint(rest)

    def kept(self) -> MoeModel:
        return self.student

    def only(self, task: str) -> MoeModel:
        return self.student.only(task)


def distillation_loss(task: Task, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Map two networks' raw outputs of a task to how far they are apart, zero where they agree.

    For class logits T² KL(softmax(teacher / T) || softmax(student / T)), the mean over images: its gradient is that of
    the paper's Eq. 2, whose T² Hinton et al. (2015) give. Our reading for all other kinds is the mean squared
    difference, over what a network decides: a detector's anchors and the image's size stay out.
    """
    if task.layout == "class":
        student_BC, teacher_BC = ((raw.float() / temperature).log_softmax(-1) for raw in (student, teacher))
        return temperature**2 * F.kl_div(student_BC, teacher_BC, reduction="batchmean", log_target=True)
    if task.layout == "boxes":
        student, teacher = student[:, :-1, :-4], teacher[:, :-1, :-4]
    return F.mse_loss(student.float(), teacher.float())
