"""What training minimizes: cross-entropy, with smoothed labels or turned to hard texts where asked for, row by row.

Sums over rows, so that a batch's loss does not depend on how its rows are shared out. Rows' weights carry those of
classes (prepare.imbalance) and of windows. What is measured after an epoch is plain cross-entropy always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from tuneline.config import TrainConfig


@dataclass(frozen=True)
class Loss:
    """Cross-entropy of rows.

    Attributes:
        label_smoothing: share of a row's target that is spread over all labels (Szegedy et al. 2016).
        focal_gamma: a row counts (1 - probability of its label) to this power (Lin et al. 2017).
        logit_adjustment: so many times the logarithm of a label's share is added to its logit (Menon et al. 2021).
        prior: the share of each label of the training rows.
    """

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    logit_adjustment: float = 0.0
    prior: tuple[float, ...] = ()

    @classmethod
    def of(cls, settings: TrainConfig, labels: Sequence[int] = (), weights: Sequence[float] | None = None) -> Loss:
        """What the settings ask for, on training rows of these labels and weights."""
        prior = shares_of(labels, weights) if settings.logit_adjustment else ()
        return cls(settings.label_smoothing, settings.focal_gamma, settings.logit_adjustment, prior)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, weights: Sequence[float] | None) -> torch.Tensor:
        """Summed over the rows, each times its weight.

        Args:
            logits: [rows, labels].
            labels: index of each row's label.
            weights: of each row; None counts all alike.
        """
        if self.logit_adjustment:
            logits = logits + self.logit_adjustment * self._log_prior(logits)
        if weights is None and not self.focal_gamma:
            return functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.label_smoothing)
        each = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        if self.focal_gamma:
            chances = logits.softmax(1).gather(1, labels[:, None])[:, 0]
            each = each * (1 - chances).clamp_min(torch.finfo(chances.dtype).eps) ** self.focal_gamma
        if weights is not None:
            each = each * torch.tensor(weights, device=each.device)
        return each.sum()

    def _log_prior(self, logits: torch.Tensor) -> torch.Tensor:
        """[labels]; a label without rows counts as half of the rarest."""
        least = min(share for share in self.prior if share) / 2
        shares = [share or least for share in self.prior] + [least] * (logits.shape[1] - len(self.prior))
        return torch.tensor(shares, device=logits.device).log()


def shares_of(labels: Sequence[int], weights: Sequence[float] | None) -> tuple[float, ...]:
    """The share of each label, from 0 to the highest that occurs, of the rows' weight."""
    sums = [0.0] * (max(labels) + 1)
    for label, weight in zip(labels, weights or [1.0] * len(labels), strict=True):
        sums[label] += weight
    return tuple(one / sum(sums) for one in sums)
