"""Whether torch.compile pays. On an H200 it made a step of BERT-base a tenth shorter, and took a quarter of a minute to
begin (docs/experiments.md); on a CPU it gained nothing, so that there it is never asked for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tuneline.config import TrainConfig
from tuneline.packing import PackedClassifier
from tuneline.train.meters import Work, peak_flops

TAKES = 15.0
"""Seconds that a compilation takes."""
GAIN = 0.09
"""Share of a training's seconds that it spares."""
UTILISATION = 0.4
"""Of the device's peak, that a training without it reaches with large batches: fewer seconds than any other has."""


def compile_where_it_pays(classifier: nn.Module, lengths: Sequence[int], settings: TrainConfig, low: bool) -> bool:
    """Have the layers compiled as train.compile says.

    Args:
        classifier: packing.classifier_for; one that is not packed, or on a CPU, stays as it is.
        lengths: tokens of the training split's rows.
        settings: compile, epochs.
        low: whether in bf16; in fp32 there is nothing to compile.

    Returns:
        Whether they will be.
    """
    if settings.compile == "never" or not low or not isinstance(classifier, PackedClassifier):
        return False
    if settings.compile == "auto" and _seconds(classifier, lengths, settings) * GAIN < TAKES:
        return False
    return classifier.compile_layers()


def _seconds(classifier: PackedClassifier, lengths: Sequence[int], settings: TrainConfig) -> float:
    """What the training takes at least; 0 where that cannot be told, or on a CPU."""
    work = Work.of(classifier)
    if work is None or classifier.device.type == "cpu":
        return 0.0
    return work.total(lengths) * settings.epochs / (UTILISATION * peak_flops(classifier.device, True))
