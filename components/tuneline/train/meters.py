"""What a training costs: seconds by kind, tokens, padding, memory, money, and the share of the device's peak it uses.

Model FLOP utilisation (MFU; Chowdhery et al. 2022, PaLM, appendix B) is the floating-point operations that the model's
matrices demand, over those that this device multiplies at best. They are counted as the architecture has them, so that
the figure can be compared: a way of computing that needs fewer (the last layer for the first token alone) shows as a
higher share, and one that computes twice does not.
"""

from __future__ import annotations

import functools
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuneline.errors import InputError
from tuneline.packing import PaddedClassifier
from tuneline.train.freezing import ABOVE, layers_place

PEAK_SECONDS = 0.15
_SIDE = 1024
Spent = dict[str, float]
"""Seconds of compute, data, checkpoint and validation."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one training step over a text of n tokens: n * token + n^2 * pair.

    Attributes:
        token: of the matrices: 2 a weight forward; 2 more where a gradient passes through; 2 more where it is tuned.
        pair: of attention: 4 a unit of width forward, twice as many backward, in each layer.
    """

    token: float
    pair: float

    @classmethod
    def of(cls, model: Any) -> Work | None:
        """Of the layers of a classifier (packing.classifier_for, or train.cut's upper part); None where it has none
        that are known. Head and embeddings are left out, as is usual."""
        network, cut = getattr(model, "network", None), getattr(model, "cut", 0)
        if network is None or cut < 0:
            return None
        try:
            owner, name = layers_place(network)
        except InputError:
            return None
        layers = list(getattr(owner, name))
        lowest = _lowest_tuned(network, layers)
        token = pair = 0.0
        for number, layer in enumerate(layers[cut:], start=cut):
            matrices = [weight for weight in layer.parameters() if weight.ndim == 2]
            size, tuned = (sum(w.numel() for w in matrices if w.requires_grad or every) for every in (True, False))
            token += size * (4 if number >= lowest else 2) + 2 * tuned
            pair += 4 * network.config.hidden_size * (3 if number >= lowest else 1)
        return cls(token, pair)

    def total(self, lengths: Sequence[int]) -> float:
        """Of these texts together."""
        return self.token * sum(lengths) + self.pair * sum(length * length for length in lengths)


def _lowest_tuned(network: Any, layers: list[Any]) -> int:
    """The lowest layer that gradients pass through: the first if anything below the layers is tuned."""
    above = {
        weight for name in ABOVE for weight in getattr(getattr(network.base_model, name, None), "parameters", list)()
    }
    inside = {weight for layer in layers for weight in layer.parameters()}
    if any(weight.requires_grad for weight in network.base_model.parameters() if weight not in inside | above):
        return 0
    tuned = [
        number for number, layer in enumerate(layers) if any(weight.requires_grad for weight in layer.parameters())
    ]
    return min(tuned, default=len(layers))


@functools.cache
def peak_flops(device: torch.device, low: bool) -> float:
    """Floating-point operations a second of square matrix products here, the best of some, with the threads in use.

    Args:
        device: where.
        low: in bf16, else in fp32.
    """
    side = _SIDE * (8 if device.type == "cuda" else 1)
    # Random numbers: a GPU draws less power on constants, and clocks higher than training ever can.
    draw = torch.Generator(device).manual_seed(0)
    square = torch.randn(side, side, generator=draw, device=device).to(torch.bfloat16 if low else torch.float32)
    best, until = float("inf"), time.perf_counter() + PEAK_SECONDS
    while best == float("inf") or time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(square, square)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def peak_memory_mb(device: torch.device) -> float:
    """Most memory that this process has taken so far, in megabytes: a GPU's as torch counts it, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the process that started this one had by then
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Meter:
    """Counts a training.

    Args:
        model: what is trained.
        device: where it is.
        low: whether in bf16.
        processes: that train together.
        spent: seconds so far, of an interrupted training too; counted on in place.
    """

    def __init__(self, model: Any, device: torch.device, low: bool, processes: int, spent: Spent) -> None:
        self.work, self.spent, self.device = Work.of(model), spent, device
        self.peak = peak_flops(device, low) * processes if self.work else 0.0
        self.pads = isinstance(model, PaddedClassifier)
        self.last = self.flops = self.tokens = self.places = self.counted = 0.0

    @contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Count the seconds that this takes; `last` is how many."""
        started = time.perf_counter()
        yield
        self.last = time.perf_counter() - started
        self.spent[kind] = self.spent.get(kind, 0.0) + self.last

    def step(self, lengths: Sequence[int]) -> dict[str, float]:
        """Count an optimizer step, which took `last` seconds, over texts of these lengths, and tell of it."""
        tokens, self.counted = sum(lengths), self.counted + self.last
        self.tokens += tokens
        self.places += len(lengths) * max(lengths) if self.pads else tokens
        facts = {"examples_per_second": len(lengths) / self.last, "tokens_per_second": tokens / self.last}
        if not self.work:
            return facts
        flops = self.work.total(lengths)
        self.flops += flops
        return facts | {"mfu": flops / self.last / self.peak}

    def totals(self, price_per_hour: float) -> dict[str, float]:
        """What it came to; shares and MFU are of the steps since the training was last taken up."""
        seconds = {f"train_{kind}_seconds": value for kind, value in self.spent.items() if kind != "compute"}
        found = seconds | {"train_peak_memory_mb": peak_memory_mb(self.device)}
        if self.places:
            found["train_padding_share"] = 1 - self.tokens / self.places
        if self.work and self.counted:
            found["train_mfu"] = self.flops / self.counted / self.peak
            found["train_peak_tflops"] = self.peak / 1e12
        if price_per_hour:
            found["train_cost"] = sum(self.spent.values()) / 3600 * price_per_hour
        return found
