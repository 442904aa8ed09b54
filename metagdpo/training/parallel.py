"""Several processes, started by `accelerate launch` or torchrun: who computes what, and how it is added up.

Every process reads the same data and plans the same steps; it computes its share of a step's groups, and gradients are
summed over the processes before the update. So the result is that of one process up to the rounding of sums, however
many there are. Weights are whole in every process (data parallel, DDP) or split over them (FSDP, torch's fully_shard).
Left out: tensor and pipeline parallelism. How to start it: docs/scale-out.md.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metagdpo.errors import ConfigError
from metagdpo.training.logprobs import Scorer
from metagdpo.training.precision import LOW

BUCKET_NUMBERS = 2**25
"""Numbers of one all-reduce: 128 MiB in float32."""


class Workers:
    """The processes of this training; one, if it was started plainly.

    Raises:
        ConfigError: They were started for devices on which they cannot work together.
    """

    def __init__(self) -> None:
        from accelerate import PartialState

        launched = "LOCAL_RANK" in os.environ
        # Left to itself, accelerate takes each of several processes without a GPU for the only one.
        cpu = _flag("ACCELERATE_USE_CPU") or (launched and not torch.accelerator.is_available())
        self._state = PartialState(cpu=cpu)
        self.rank, self.n = int(self._state.process_index), int(self._state.num_processes)
        self.device = self._state.device
        if launched and self.n != int(os.environ.get("WORLD_SIZE", "1")):
            message = (
                f"{os.environ['WORLD_SIZE']} processes were started, but on {self.device.type} they do not find each "
                "other. Start one, or set ACCELERATE_USE_CPU=true."
            )
            raise ConfigError(message)
        self.sharded = self.n > 1 and _flag("ACCELERATE_USE_FSDP")
        """Weights are split over the processes (`distributed_type: FSDP` in accelerate's configuration)."""

    @property
    def main(self) -> bool:
        """The one process that writes files and shows progress."""
        return self.rank == 0

    def share(self, costs: Sequence[int]) -> list[int]:
        """Which of a step's units this process computes: the largest first, each to whoever has least so far.

        Args:
            costs: Tokens of each unit.
        """
        return shares(costs, self.n)[self.rank]

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """Values added up over all processes; every process has the same names."""
        if self.n == 1:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))

    def most(self, value: int) -> int:
        """The largest value that a process has."""
        if self.n == 1:
            return value
        largest = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        return int(largest)

    def agree(self, value: str) -> None:
        """Refuse to go on when processes are about to do different things; all of them have to ask.

        Args:
            value: What this process is about to do.

        Raises:
            ConfigError: Another one has another value; raised in all of them.
        """
        if self.n == 1:
            return
        number = int(hashlib.sha256(value.encode()).hexdigest()[:12], 16)
        both = torch.tensor([number, -number], device=self.device)
        torch.distributed.all_reduce(both, torch.distributed.ReduceOp.MAX)
        if int(both[0]) != -int(both[1]):
            message = (
                "the processes do not see the same parameters, data and checkpoints. Start all of them in the same "
                "project folder; with several machines, on a disk that they share (docs/scale-out.md)."
            )
            raise ConfigError(message)

    def add_gradients(self, learning: Sequence[Tensor]) -> None:
        """Sum gradients over the processes; where weights are split, backward has done so already.

        What got no gradient gets 0, so that the optimiser does the same however many processes there are.
        """
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.n == 1 or self.sharded:
            return
        self.add_up([parameter.grad for parameter in learning])

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over the processes, in place; every process has the same shapes, and gets the same numbers."""
        if self.n == 1:
            return
        bucket: list[Tensor] = []
        for tensor in tensors:
            bucket.append(tensor)
            if sum(each.numel() for each in bucket) >= BUCKET_NUMBERS:
                _all_reduce(bucket)
                bucket = []
        _all_reduce(bucket)

    def shard(self, scorer: Scorer) -> None:
        """Split the policy's weights over the processes, layer by layer.

        Args:
            scorer: Changed in place; called as a whole from then on.

        Raises:
            ConfigError: This torch, or these weights, cannot be split.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
            raise ConfigError(
                f"torch {torch.__version__} is too old for FSDP here. Install torch 2.9 or newer, or use DDP."
            )
        learning = {parameter.dtype for parameter in scorer.parameters() if parameter.requires_grad}
        if len(learning) > 1:
            names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in learning))
            raise ConfigError(f"weights that learn are {names}, which FSDP cannot split together. Use DDP.")
        # Sums over processes are made in float32; what learns in less has a float32 master (precision.py).
        precision = MixedPrecisionPolicy(reduce_dtype=torch.float32 if learning & LOW else None)
        mesh = init_device_mesh(self.device.type, (self.n,))
        plain = scorer.policy.get_base_model() if hasattr(scorer.policy, "get_base_model") else scorer.policy
        layers = set(plain._no_split_modules or ())  # noqa: SLF001  (FSDP's own convention)
        for module in scorer.modules():
            if type(module).__name__ in layers:
                fully_shard(module, mesh=mesh, mp_policy=precision)
        # Split again after every forward pass, so that nothing can read a whole weight that an update made stale.
        fully_shard(scorer, mesh=mesh, mp_policy=precision, reshard_after_forward=True)
        for module in scorer.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # a sum over processes: the loss has its divisor already
                module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale

    def wait(self) -> None:
        """Until every process is here."""
        self._state.wait_for_everyone()


def shares(costs: Sequence[int], n: int) -> list[list[int]]:
    """Which units each of n processes computes: the largest first, each to whoever has least so far.

    Args:
        costs: Tokens of each unit.
        n: Processes.
    """
    load = [0] * n
    owned: list[list[int]] = [[] for _ in range(n)]
    for unit in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        owner = min(range(n), key=lambda rank: (load[rank], rank))
        load[owner] += costs[unit]
        owned[owner].append(unit)
    return [sorted(units) for units in owned]


def whole(tensor: Any) -> Tensor:
    """A tensor in full, also where it is split over processes; all of them have to ask."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def placed(full: Tensor, like: Any) -> Tensor:
    """A full tensor as another one is kept: on its device, and split if that is."""
    if not hasattr(like, "full_tensor"):
        return full.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    # Every process has the full tensor, so that nothing needs to be sent.
    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _flag(name: str) -> bool:
    return os.environ.get(name, "false").lower() in {"true", "1", "yes"}


def _all_reduce(tensors: Sequence[Tensor]) -> None:
    if not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
