"""Weights that learn, in at least float32, whatever the precision they are used in.

A step of 2e-6 is lost in bfloat16, whose neighbours are 2^-8 apart, and so is the sum of many small gradients. A
parameter in low precision therefore has a float32 master: gradients are added to the master's as soon as they exist,
the optimiser updates the master, and the parameter is its rounding.
"""

from typing import Any

import torch
from torch import Tensor

LOW = frozenset({torch.bfloat16, torch.float16})


class Masters:
    """The learning parameters of a model as the optimiser sees them.

    Args:
        model: The policy; parameters that require a gradient learn.
    """

    def __init__(self, model: Any) -> None:
        self._pairs: list[tuple[Any, Tensor]] = []
        self._hooks: list[Any] = []
        self.named: dict[str, Tensor] = {}
        """By parameter name: the master, or the parameter itself where it is float32 already."""
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            self.named[name] = parameter
            if parameter.dtype in LOW:
                self.named[name] = master = parameter.detach().float().requires_grad_()
                self._pairs.append((parameter, master))
                self._hooks.append(parameter.register_post_accumulate_grad_hook(_moves_to(master)))

    @property
    def learning(self) -> list[Tensor]:
        """What the optimiser updates."""
        return list(self.named.values())

    def release(self) -> None:
        """Leave the gradients to whoever trains the model next."""
        for hook in self._hooks:
            hook.remove()

    def write_back(self) -> None:
        """Round the masters into the model's parameters."""
        with torch.no_grad():
            for parameter, master in self._pairs:
                parameter.copy_(master)


def _moves_to(master: Tensor) -> Any:
    def move(parameter: Any) -> None:
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad.add_(parameter.grad)
        parameter.grad = None

    return move
