"""The networks of the spon claim's arms: processors of as many parameters, on one mesh or on a hierarchy."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from throughline.claims.spon.config import Config
from throughline.claims.spon.tasks import Pairs, Task
from throughline.physics.operators import FunctionSpace, GraphProcessor, MultigridProcessor, OperatorNetwork

__all__ = ["Scaled", "build", "rebuilt"]


class Scaled(nn.Module):
    """A processor between values in units of the training data, so that boundary values behind it stay exact."""

    mean: Tensor
    std: Tensor
    unit: Tensor

    def __init__(self, processor: nn.Module, train: Pairs) -> None:
        super().__init__()
        self.processor = processor
        std, mean = torch.std_mean(train.inputs)
        unit = train.outputs.std()  # one for all unknowns
        for name, value in (("mean", mean), ("std", std), ("unit", unit)):
            self.register_buffer(name, torch.where(value != 0, value, 1) if name != "mean" else value)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.processor((x - self.mean) / self.std) * self.unit
        return made


def channels(task: Task) -> int:
    return 1 if task.inputs.components == task.spaces[-1].components else task.inputs.components or 1


def processor(arm: str, config: Config, task: Task, spaces: list[FunctionSpace]) -> nn.Module:
    """The processor of an arm on some meshes."""

    def on_many(hidden: int) -> nn.Module:
        return MultigridProcessor(
            spaces,
            channels(task),
            hidden=hidden,
            smoothing_steps=config.smoothing_steps,
            coarse_steps=config.coarse_steps,
        )

    if arm != "spon" and len(spaces) > 1:
        return on_many(config.hidden)
    return GraphProcessor(spaces[-1], channels(task), hidden=width_of(config, task), steps=config.steps)


def width_of(config: Config, task: Task) -> int:
    """The width at which one level has the number of parameters nearest to that of the hierarchy."""
    d = task.spaces[-1].coordinates.shape[1]
    known = d + 1 + (task.spaces[-1].components or 0)

    def count(hidden: int, steps: int) -> int:
        """Of a processor: each step, and the two ends."""
        step = 6 * hidden**2 + (d + 1) * hidden + 6 * hidden
        return steps * step + 2 * hidden**2 + (channels(task) + known + 4) * hidden + 1

    levels = len(task.spaces)
    if levels == 1:
        return config.hidden
    wanted = count(config.hidden, config.coarse_steps + 2 * (levels - 1) * config.smoothing_steps)
    return min(range(1, 4 * config.hidden + 1), key=lambda hidden: abs(count(hidden, config.steps) - wanted))


def network(
    arm: str, config: Config, task: Task, made: nn.Module, inputs: FunctionSpace, outputs: FunctionSpace
) -> OperatorNetwork:
    """A processor with its scale and boundary values; for `unconstrained`, without these."""
    if arm == "unconstrained":
        outputs = FunctionSpace(outputs.mesh, outputs.element)
        inputs = outputs if inputs.dim == outputs.dim and inputs.components == outputs.components else inputs
    scaled = Scaled(made, task.train)
    return OperatorNetwork(inputs, outputs, scaled, boundary=task.boundary).to(config.device)


def build(arm: str, config: Config, task: Task) -> OperatorNetwork:
    made = processor(arm, config, task, task.spaces)
    return network(arm, config, task, made, task.inputs, task.spaces[-1])


def rebuilt(
    arm: str, config: Config, task: Task, net: OperatorNetwork, inputs: FunctionSpace, outputs: FunctionSpace
) -> OperatorNetwork:
    """The same weights on the once refined mesh; a hierarchy gets one level more, with the weights of its finest."""
    state, spaces = net.state_dict(), [outputs]
    if any(".down." in name for name in state):
        state, spaces = extended(state, len(task.spaces) - 1), [*task.spaces, outputs]
    made = network(arm, config, task, processor(arm, config, task, spaces), inputs, outputs)
    made.load_state_dict(state)
    return made


def extended(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Weights for one level more, which gets those of the finest."""
    made = dict(state)
    for name, value in state.items():
        for way in ("down", "up"):
            finest = f".{way}.{levels - 1}."
            if finest in name:
                made[name.replace(finest, f".{way}.{levels}.")] = value
    return made
