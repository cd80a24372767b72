"""The training loop: a loss, AdamW, linear warm-up and decay. Plain torch, one process or several (torchrun).

The model takes token rows and gives logits; how rows become tensors, packed or padded, is its own affair (packing.py).
Weights and optimizer stay in fp32; in bf16 (autocast) are matrix multiplications and what lies between them.

A batch is global: each process takes its share of the rows, and the loss is the mean over the whole batch, so that the
curve does not depend on the number of processes.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from tuneline.config import TrainConfig
from tuneline.errors import DivergedError
from tuneline.train.batches import balanced, epoch_batches
from tuneline.train.best import Best
from tuneline.train.checkpoints import Checkpoints
from tuneline.train.group import Group
from tuneline.train.losses import Loss
from tuneline.train.meters import Meter
from tuneline.train.passes import PassLimit, passes, shares
from tuneline.train.precision import uses_bf16
from tuneline.train.rates import factors

Numbers = dict[str, float]


@dataclass(frozen=True)
class Examples:
    """Tokenized texts, a row each, or a row for each of its windows.

    Attributes:
        input_ids: token ids of each row.
        labels: index of the label of each row.
        pair_at: index of the first token of each row's second text; None where rows hold one text.
        weights: what each row's loss counts; None counts all alike.
        windows: rows of each text, one after the other; None where a row is a text.
    """

    input_ids: list[list[int]]
    labels: list[int]
    pair_at: list[int] | None = None
    weights: list[float] | None = None
    windows: list[int] | None = None

    @functools.cached_property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.input_ids]

    def rows(self, batch: list[int]) -> tuple[Any, Any]:
        """What the model takes of these rows: token ids (packing.Rows), and where the second texts begin."""
        pair_at = [self.pair_at[index] for index in batch] if self.pair_at else None
        return [self._arrays[index] for index in batch], pair_at

    @functools.cached_property
    def _arrays(self) -> list[Any]:
        """input_ids as arrays, which are put together quicker than lists."""
        return [np.asarray(row, dtype=np.int64) for row in self.input_ids]


def optimizer_for(model: nn.Module, settings: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); biases and normalization weights, the vectors, are not decayed.

    Each group has the `factor` of its learning rate (rates.py).
    """
    own = factors(getattr(model, "network", model), settings.layer_decay) if settings.layer_decay < 1 else {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(settings.weight_decay, 1.0): [], (0.0, 1.0): []}
    for weight in filter(lambda weight: weight.requires_grad, model.parameters()):
        kind = (settings.weight_decay if weight.ndim >= 2 else 0.0, own.get(weight, 1.0))
        groups.setdefault(kind, []).append(weight)
    parts = [{"params": found, "weight_decay": decay, "factor": factor} for (decay, factor), found in groups.items()]
    return torch.optim.AdamW(parts, lr=settings.learning_rate, fused=True)


def schedule(rows: int, settings: TrainConfig) -> tuple[int, int]:
    """Optimizer steps in all, and those that warm up."""
    total = settings.epochs * -(-rows // settings.batch_size)
    return total, min(math.ceil(total * settings.warmup_share), total - 1)


def rate_at(step: int, total: int, warmup: int) -> float:
    """Factor of the learning rate at a step (from 0): up in a line from zero over the warm-up, then down to zero.

    As transformers' linear schedule has it, whose first step has no rate at all.
    """
    if step < warmup:
        return step / warmup
    return (total - step) / max(1, total - warmup)


def train_loop(
    model: nn.Module,
    train: Examples,
    validation: Examples,
    settings: TrainConfig,
    on_step: Callable[[int, int, Numbers], None],
    on_epoch: Callable[[int, Numbers], None],
    group: Group | None = None,
    checkpoints: Checkpoints | None = None,
    on_answers: Callable[[torch.Tensor], None] | None = None,
) -> Numbers:
    """Fine-tune `model` in place.

    Args:
        model: takes token rows, gives logits [texts, labels] (packing.classifier_for).
        train: what is learned from.
        validation: what is measured after each epoch.
        settings: epochs, rates, batch size, precision, seed.
        on_step: called with the step (from 1), the total and loss, learning_rate, examples_per_second,
            tokens_per_second and, where the family's layers are known, mfu of that step.
        on_epoch: called with the epoch (from 1) and validation_loss, validation_accuracy, validation_macro_f1.
        group: the processes that train together; alone by default.
        checkpoints: where to go on from, and to save to; nowhere by default.
        on_answers: called with the probabilities of the validation rows by the weights that are kept, float64
            [rows, labels].

    Returns:
        train_seconds of all optimizer steps, those before an interruption included, train_examples_per_second and
        train_tokens_per_second over them, train_steps, of which the weights that are kept are the result, and these
        weights' metrics; with early stopping train_best_epoch; and what meters.Meter.totals tells.

    Raises:
        DivergedError: the loss is no longer finite.
        SystemExit: a signal asked for an end; the state is saved.
    """
    group = group or Group()
    limit = PassLimit(settings.pass_tokens)
    checkpoints = checkpoints or Checkpoints(None, group, 0)
    wrapped = nn.parallel.DistributedDataParallel(model) if group.size > 1 else model
    optimizer = optimizer_for(model, settings)
    low = uses_bf16(settings.precision, _device(model))
    loss_of = Loss.of(settings, train.labels, train.weights)
    total, warmup = schedule(len(train.labels), settings)
    steps = total // settings.epochs  # of an epoch
    best = checkpoints.best = checkpoints.best or Best.of(settings)
    position, last = checkpoints.resume(model, optimizer), Numbers()
    answers = deque[torch.Tensor](maxlen=1)  # an epoch's may be large
    measured = functools.partial(
        measure, model, validation, settings.batch_size, group, low, on_answers=answers.append, limit=limit
    )
    meter = Meter(model, _device(model), low, group.size, position.spent)
    with checkpoints.listening():
        for epoch in range(min(position.measured, settings.epochs - 1), settings.epochs):
            model.train()
            with meter.spending("data"):
                batches = batches_of(train, settings, epoch)
            for batch in batches[position.step - epoch * steps :]:
                rate = settings.learning_rate * rate_at(position.step, total, warmup)
                for parameters in optimizer.param_groups:
                    parameters["lr"] = rate * parameters["factor"]
                with meter.spending("compute"):
                    loss = optimizer_step(wrapped, optimizer, train, batch, group, low, limit, loss_of)
                lengths = [train.lengths[index] for index in batch]
                position.step += 1
                position.tokens += sum(lengths)
                if not math.isfinite(loss):
                    raise DivergedError(
                        f"train.learning_rate: the loss is {loss} at step {position.step}; lower the learning rate"
                    )
                on_step(position.step, total, {"loss": loss, "learning_rate": rate} | meter.step(lengths))
                wish = max(checkpoints.wish, int(position.step == total))
                with meter.spending("checkpoint"):
                    checkpoints.after_step(group.highest(wish, _device(model)), position, model, optimizer)
            with meter.spending("validation"):
                last = measured(on_batch=lambda: checkpoints.between_batches(position, model, optimizer))
            position.measured = epoch + 1
            on_epoch(epoch + 1, last)
            if best.after(epoch + 1, last, model):
                break
    if best.patience and best.epoch < position.measured:
        best.restore(model)
        last = measured()
    if on_answers:
        on_answers(answers[-1])
    kept = {"train_steps": float((best.epoch or position.measured) * steps)}
    if best.patience:
        kept["train_best_epoch"] = float(best.epoch)
    seconds = position.spent["compute"]
    speeds = {
        "train_examples_per_second": len(train.labels) * position.measured / seconds,
        "train_tokens_per_second": position.tokens / seconds,
        "train_seconds": seconds,
    }
    return last | kept | speeds | meter.totals(settings.price_per_hour)


def batches_of(train: Examples, settings: TrainConfig, epoch: int) -> list[list[int]]:
    """Row indices of each batch of an epoch, from 0, in order."""
    balance = settings.sampling == "balanced"
    rows = balanced(train.labels, train.weights, settings.seed, epoch) if balance else None
    return epoch_batches(train.lengths, settings.batch_size, settings.seed, epoch, rows)


def optimizer_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: Examples, batch: list[int], group: Group, low: bool,
    limit: PassLimit, loss_of: Loss,
) -> float:  # fmt: skip
    """Learn from a batch, this process from its share of it; gives the batch's mean loss."""
    share = shares(batch, train.lengths, group.size)[group.rank]
    lengths = [train.lengths[index] for index in share or batch[:1]]
    attempt = functools.partial(_gradients, model, train, share, batch, group, low, limit, loss_of)
    loss = limit.keeping(attempt, optimizer.zero_grad, sum(lengths), max(lengths), alone=group.size == 1)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(group.sum(loss / group.size))


def _gradients(
    model: nn.Module, train: Examples, share: list[int], batch: list[int], group: Group, low: bool, limit: PassLimit,
    loss_of: Loss,
) -> torch.Tensor:  # fmt: skip
    """Add the share's gradients to the parameters; gives its part of the batch's mean loss, times the group's size."""
    # DDP averages gradients over processes: weigh each share so that the average is the mean over the whole batch.
    weight = group.size / len(batch) if share else 0.0
    parts = passes(share or batch[:1], train.lengths, limit.tokens)
    total = torch.zeros((), device=_device(model))
    for part in parts:
        labels = torch.tensor([train.labels[index] for index in part], device=_device(model))
        with group.alone(model) if part is not parts[-1] else nullcontext():
            logits = _logits(model, train, part, low)
            loss = loss_of(logits, labels, train.weights and [train.weights[index] for index in part]) * weight
            loss.backward()
        total = total + loss.detach()
    return total


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _logits(model: nn.Module, examples: Examples, batch: list[int], low: bool) -> torch.Tensor:
    with torch.autocast(_device(model).type, torch.bfloat16, enabled=low):
        return model(*examples.rows(batch))


@torch.inference_mode()
def measure(
    model: nn.Module,
    examples: Examples,
    batch_size: int,
    group: Group,
    low: bool = False,
    on_batch: Callable[[], None] | None = None,
    on_answers: Callable[[torch.Tensor], None] | None = None,
    limit: PassLimit | None = None,
) -> Numbers:
    """Mean cross-entropy, accuracy and macro F1 on held-out texts; every process takes its share of the batches.

    The answer to a text in windows is the mean of the windows' probabilities, as it is where the model serves.

    Args:
        model: takes token rows.
        examples: what is measured.
        batch_size: rows in half a batch.
        group: the processes that measure together.
        low: whether in bf16.
        on_batch: called after each batch.
        on_answers: called with the probabilities of all rows, float64 [rows, labels].
        limit: how many tokens go through the model at once; as many as a batch has where there is none.
    """
    model.eval()
    order = sorted(range(len(examples.labels)), key=lambda index: len(examples.input_ids[index]))
    batches = [order[at : at + 2 * batch_size] for at in range(0, len(order), 2 * batch_size)]
    if limit:
        batches = [part for batch in batches for part in passes(batch, examples.lengths, limit.tokens)]
    chances = _answers(model, examples, batches[group.rank :: group.size], group, low, on_batch)
    if on_answers:
        on_answers(chances)
    return _score(chances, examples)


def _answers(
    model: nn.Module, examples: Examples, batches: list[list[int]], group: Group, low: bool,
    on_batch: Callable[[], None] | None,
) -> torch.Tensor:  # fmt: skip
    """Probabilities of all rows, float64 [rows, labels], of which this process has made its batches'."""
    parts, device = [], _device(model)
    for batch in batches:
        parts.append(_logits(model, examples, batch, low).double().softmax(1))
        if on_batch:
            on_batch()
    classes = group.highest(max((part.shape[1] for part in parts), default=0), device)
    chances = torch.zeros(len(examples.labels), classes, dtype=torch.float64, device=device)
    for batch, part in zip(batches, parts, strict=True):
        chances[batch] = part
    return group.sum(chances)


def _score(chances: torch.Tensor, examples: Examples) -> Numbers:
    """Mean cross-entropy, accuracy and macro F1 over the texts, which may have several rows each."""
    labels = torch.tensor(examples.labels, device=chances.device)
    if examples.windows:
        counts = torch.tensor(examples.windows, device=chances.device)
        text = torch.arange(len(counts), device=chances.device).repeat_interleave(counts)
        sums = torch.zeros(len(counts), chances.shape[1], dtype=chances.dtype, device=chances.device)
        chances, labels = sums.index_add(0, text, chances) / counts[:, None], labels[counts.cumsum(0) - counts]
    losses = -chances.gather(1, labels[:, None]).clamp_min(torch.finfo(torch.float64).tiny).log()
    right = (chances.argmax(1) == labels).double().mean()
    f1 = _macro_f1(chances.argmax(1), labels, chances.shape[1])
    return {"validation_loss": float(losses.mean()), "validation_accuracy": float(right), "validation_macro_f1": f1}


def _macro_f1(answers: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """Mean F1 over the classes that occur among labels or answers."""
    right = torch.bincount(labels[answers == labels], minlength=classes).double()
    either = torch.bincount(labels, minlength=classes) + torch.bincount(answers, minlength=classes)
    return float((2 * right / either)[either > 0].mean())
