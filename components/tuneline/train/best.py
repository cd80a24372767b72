"""The weights of the best epoch so far, by a metric of the validation split, and when waiting for a better one ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from tuneline.config import TrainConfig

Numbers = dict[str, float]


@dataclass
class Best:
    """The best epoch so far.

    Attributes:
        metric: loss, accuracy or macro_f1 of the validation split.
        patience: epochs without a better one after which training ends; 0 for a training that keeps the last epoch.
        epoch: its number, from 1; 0 before the first was measured.
        value: its metric.
        weights: its tuned parameters by name.
    """

    metric: str
    patience: int
    epoch: int = 0
    value: float = 0.0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: TrainConfig) -> Best:
        """What the settings ask for."""
        return cls(settings.best_metric, settings.early_stopping)

    def after(self, epoch: int, measured: Numbers, model: nn.Module) -> bool:
        """Keep the weights if this epoch, from 1, is better than all before.

        Returns:
            Whether training ends.
        """
        if not self.patience:
            return False
        value = measured[f"validation_{self.metric}"]
        if not self.epoch or (value < self.value if self.metric == "loss" else value > self.value):
            self.epoch, self.value = epoch, value
            self.weights = {name: weight.detach().clone() for name, weight in tuned(model).items()}
        return epoch - self.epoch >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Put its weights back."""
        with torch.no_grad():
            for name, weight in tuned(model).items():
                weight.copy_(self.weights[name])


def tuned(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
