"""The processes that train together (torchrun)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Group:
    """Which process of how many this is; alone by default."""

    rank: int = 0
    size: int = 1

    def alone(self, model: nn.Module) -> AbstractContextManager[None]:
        """While this lasts, gradients are not averaged over the processes."""
        return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The value summed over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def highest(self, value: int, device: torch.device) -> int:
        """The highest of the processes' values."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, device=device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def gather(self, value: torch.Tensor) -> list[torch.Tensor]:
        """The processes' values, all of one shape, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[object] = [None] * self.size
        dist.all_gather_object(values, value)
        return [found for found in values if isinstance(found, torch.Tensor)]
