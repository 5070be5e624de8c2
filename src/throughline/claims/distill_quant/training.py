"""The arms of the distill-quant claim: the same student, data and order of batches, quantised in different ways."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from throughline.claims.distill_quant.config import Config
from throughline.claims.distill_quant.data import Task
from throughline.claims.shared import random_batches
from throughline.claims.shared.evaluation import outputs
from throughline.discrete.quantization import (
    CompressedSize,
    PointQuantizer,
    WeightQuantizer,
    distillation_loss,
)
from throughline.lab import Log

__all__ = ["ARMS", "Trainer", "epochs_of"]

POINTS = 50  # of a loss curve
CHUNK = 1000  # samples at once, where no gradient is kept
BINS = 80  # of the histogram that is kept
SHOWN = 2  # bits of what is kept for the pictures

Metrics = dict[str, float]
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits, inputs and their rows


class Trainer:
    """What the arms share for one seed."""

    def __init__(self, task: Task, config: Config, seed: int, log: Log, epochs: int) -> None:
        self.task, self.config, self.seed, self.log = task, config, seed, log
        self.step, self.total = 0, epochs * -(-len(task.x) // config.batch)

    def fresh(self, network: Callable[[], nn.Module]) -> nn.Module:
        """A new network, the same one for a seed each time."""
        torch.manual_seed(self.seed)
        return network()

    def fit(
        self,
        model: nn.Module,
        objective: Objective,
        *,
        within: AbstractContextManager[Any] | None = None,
        points: PointQuantizer | None = None,
        lr: float | None = None,
        curve: bool = False,
    ) -> nn.Module:
        """Train ``model``, or the points of its quantiser, with losses taken inside of ``within``.

        ``lr`` stands in place of a student's rate.
        """
        config, task = self.config, self.task
        optimizer: torch.optim.Optimizer
        if points is None:
            optimizer = torch.optim.SGD(
                model.parameters(), lr or config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
            )
        else:
            optimizer = torch.optim.Adam(points.parameters(), config.point_lr)
        epochs = config.epochs if points is None else config.point_epochs
        steps = epochs * -(-len(task.x) // config.batch)
        falls = points is None or config.point_schedule == "cosine"
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps)) if falls else None
        around = points or within or nullcontext()
        model.train()
        for step, (x, rows) in enumerate(batches(task, config, self.seed, epochs)):
            with around:
                loss = objective(model(x), x, rows)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            if schedule is not None:
                schedule.step()
            self.log(self.step, of=self.total)
            if curve and (step % max(1, steps // POINTS) == 0 or step == steps - 1):
                self.log(step, loss=loss)
            self.step += 1
        return model

    def taught_by(self, teacher: nn.Module) -> Objective:
        """The distillation loss of a teacher in evaluation mode."""
        config, task = self.config, self.task
        teacher = teacher.eval()
        logits = None if task.augment else outputs(teacher, task.x, chunk=CHUNK)  # the same in all epochs

        def objective(z: Tensor, x: Tensor, rows: Tensor) -> Tensor:
            with torch.no_grad():
                t = teacher(x) if logits is None else logits[rows]
            return distillation_loss(z, t, task.y[rows], temperature=config.temperature, weight=config.weight)

        return objective

    def labels(self, z: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        """Plain cross-entropy."""
        return F.cross_entropy(z, self.task.y[rows])

    def teacher(self) -> nn.Module:
        return self.fit(self.fresh(self.task.teacher), self.labels, lr=self.config.teacher_lr)

    def distilled(self) -> nn.Module:
        """The student at full precision, distilled from the teacher."""
        return self.fit(self.fresh(self.task.student), self.taught_by(self.teacher()))

    def renormalised(self, model: nn.Module) -> nn.Module:
        """The same with the statistics of its batch norm taken again, over the training inputs."""
        update_bn(self.task.x.chunk(-(-len(self.task.x) // CHUNK)), model)  # a mean over parts of one size
        return model

    def accuracy(self, model: nn.Module) -> float:
        return (outputs(model, self.task.test_x, chunk=CHUNK).argmax(1) == self.task.test_y).double().mean().item()


def batches(task: Task, config: Config, seed: int, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and their rows; the same order for a seed in every arm."""
    draw = torch.Generator().manual_seed(seed)
    for numbers in random_batches.epochs(epochs, len(task.x), config.batch, draw):
        rows = numbers.to(task.x.device)
        yield (task.x[rows] if task.augment is None else task.augment(task.x[rows], draw)), rows


def post_training(trainer: Trainer) -> Metrics:
    """The distilled student, quantised when all is done, and then its batch norm measured again."""
    student = trainer.distilled()
    found: Metrics = {}
    for bits in trainer.config.bits:
        quantizer = WeightQuantizer(copy.deepcopy(student), bits)
        found |= metrics(bits, trainer.accuracy(trainer.renormalised(quantizer.finalize())), quantizer.size())
    whole = WeightQuantizer(copy.deepcopy(student), 2, bucket_size=None).finalize()
    plain = WeightQuantizer(copy.deepcopy(student), 2).finalize()
    return found | {
        "accuracy_2bit_one_bucket": trainer.accuracy(trainer.renormalised(whole)),
        "accuracy_2bit_plain": trainer.accuracy(plain),
    }


def quantized_distillation(trainer: Trainer) -> Metrics:
    """Algorithm 1: gradients at the quantised weights, steps at full precision."""
    return trained_quantized(trainer, trainer.taught_by(trainer.teacher()))


def no_teacher(trainer: Trainer) -> Metrics:
    """The same with labels alone."""
    return trained_quantized(trainer, trainer.labels)


def trained_quantized(trainer: Trainer, objective: Objective) -> Metrics:
    found: Metrics = {}
    for bits in trainer.config.bits:
        student = trainer.fresh(trainer.task.student)
        quantizer = WeightQuantizer(student, bits)
        trainer.fit(student, objective, within=quantizer, curve=bits == SHOWN)
        found |= quantized(trainer, quantizer, bits)
    return found


def differentiable(trainer: Trainer) -> Metrics:
    """Algorithm 2: the distilled student stays as it is, is its own teacher, and the levels move."""
    student = trainer.distilled()
    found: Metrics = {}
    objective = trainer.taught_by(copy.deepcopy(student))
    for bits in trainer.config.bits:
        learner = copy.deepcopy(student).requires_grad_(False)
        quantizer = PointQuantizer(learner, bits)
        start = [points.detach().clone() for points in quantizer.points]
        trainer.fit(learner, objective, points=quantizer, curve=bits == SHOWN)
        if bits == SHOWN:
            keep_levels(trainer.log, quantizer, start)
        found |= quantized(trainer, quantizer, bits)
    return found


def full_precision(trainer: Trainer) -> Metrics:
    """The distilled student itself, which is the same at any number of bits."""
    teacher = trainer.teacher()
    student = trainer.fit(trainer.fresh(trainer.task.student), trainer.taught_by(teacher), curve=True)
    accuracy, full = trainer.accuracy(student), 4 * sum(p.numel() for p in student.parameters())
    size = CompressedSize(full, 32.0, full, 1.0)
    every = [metrics(bits, accuracy, size) for bits in trainer.config.bits]
    return {name: value for found in every for name, value in found.items()} | {
        "teacher_accuracy": trainer.accuracy(teacher)
    }


ARMS: dict[str, Callable[[Trainer], Metrics]] = {
    "post_training": post_training,
    "quantized_distillation": quantized_distillation,
    "differentiable": differentiable,
    "no_teacher": no_teacher,
    "full_precision": full_precision,
}


def epochs_of(arm: str, config: Config) -> int:
    """Epochs that an arm trains for, teacher included: what its progress is measured by."""
    if arm == "differentiable":
        return 2 * config.epochs + config.point_epochs * len(config.bits)
    if arm in ("quantized_distillation", "no_teacher"):
        return config.epochs * (len(config.bits) + (arm == "quantized_distillation"))
    return 2 * config.epochs


def quantized(trainer: Trainer, quantizer: WeightQuantizer | PointQuantizer, bits: int) -> Metrics:
    """Accuracy and size of the model that a quantiser makes."""
    return metrics(bits, trainer.accuracy(quantizer.finalize()), quantizer.size())


def metrics(bits: int, accuracy: float, size: CompressedSize) -> Metrics:
    found = {"accuracy": accuracy, "kilobytes": size.bytes / 1000, "size_ratio": size.ratio}
    return {f"{name}_{bits}bit": value for name, value in found.items()}


def keep_levels(log: Log, quantizer: PointQuantizer, start: list[Tensor]) -> None:
    """Store the scaled weights of the largest layer as a histogram, and its points before and after."""
    place, weight = max(enumerate(quantizer.weights.values()), key=lambda entry: entry[1].numel())
    buckets = weight.detach().flatten().split(256)  # type: ignore[no-untyped-call]
    scaled = torch.cat([(bucket - bucket.min()) / (bucket.max() - bucket.min()).clamp_min(1e-10) for bucket in buckets])
    log.keep(
        histogram=torch.histc(scaled.cpu(), BINS, 0, 1),
        start=start[place],
        points=quantizer.points[place].detach().sort().values,
    )
