"""The training loop: cross-entropy, AdamW, linear warm-up and decay. Plain torch, one process or several (torchrun).

The model takes token rows and gives logits; how rows become tensors, packed or padded, is its own affair (packing.py).
Weights and optimizer stay in fp32; in bf16 (autocast) are matrix multiplications and what lies between them.

A batch is global: each process takes its share of the rows, and the loss is the mean over the whole batch, so that the
curve does not depend on the number of processes.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from tuneline.config import TrainConfig
from tuneline.errors import InputError
from tuneline.packing import Rows
from tuneline.train.batches import epoch_batches
from tuneline.train.checkpoints import Checkpoints
from tuneline.train.group import Group
from tuneline.train.passes import PassLimit, passes, shares
from tuneline.train.precision import uses_bf16

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

    def rows(self, batch: list[int]) -> tuple[Rows, list[int] | None]:
        """What the model takes of these rows: token ids, and where the second texts begin."""
        pair_at = [self.pair_at[index] for index in batch] if self.pair_at else None
        return [self.input_ids[index] for index in batch], pair_at


def optimizer_for(model: nn.Module, settings: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); biases and normalization weights, the vectors, are not decayed."""
    decayed = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim >= 2]
    plain = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim < 2]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


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
) -> Numbers:
    """Fine-tune `model` in place.

    Args:
        model: takes token rows, gives logits [texts, labels] (packing.classifier_for).
        train: what is learned from.
        validation: what is measured after each epoch.
        settings: epochs, rates, batch size, precision, seed.
        on_step: called with the step (from 1), the total and loss, learning_rate, examples_per_second and
            tokens_per_second of that step.
        on_epoch: called with the epoch (from 1) and validation_loss, validation_accuracy.
        group: the processes that train together; alone by default.
        checkpoints: where to go on from, and to save to; nowhere by default.

    Returns:
        train_seconds of all optimizer steps, those before an interruption included, train_examples_per_second and
        train_tokens_per_second over them, and the last epoch's metrics.

    Raises:
        InputError: the loss is no longer finite.
        SystemExit: a signal asked for an end; the state is saved.
    """
    group = group or Group()
    limit = PassLimit(settings.pass_tokens)
    checkpoints = checkpoints or Checkpoints(None, group, 0)
    wrapped = nn.parallel.DistributedDataParallel(model) if group.size > 1 else model
    optimizer = optimizer_for(model, settings)
    low = uses_bf16(settings.precision, _device(model))
    lengths = train.lengths
    steps = -(-len(lengths) // settings.batch_size)  # of an epoch
    total, warmup = schedule(len(lengths), settings)
    position, last = checkpoints.resume(model, optimizer), Numbers()
    with checkpoints.listening():
        for epoch in range(min(position.step // steps, settings.epochs - 1), settings.epochs):
            model.train()
            batches = epoch_batches(lengths, settings.batch_size, settings.seed, epoch)
            for batch in batches[position.step - epoch * steps :]:
                started = time.perf_counter()
                rate = settings.learning_rate * rate_at(position.step, total, warmup)
                for parameters in optimizer.param_groups:
                    parameters["lr"] = rate
                loss = _step(wrapped, optimizer, train, batch, group, low, limit)
                took = time.perf_counter() - started
                position.step += 1
                position.seconds += took
                if not math.isfinite(loss):
                    raise InputError(
                        f"train.learning_rate: the loss is {loss} at step {position.step}; lower the learning rate"
                    )
                tokens = sum(lengths[index] for index in batch)
                facts = {"loss": loss, "learning_rate": rate, "examples_per_second": len(batch) / took}
                on_step(position.step, total, facts | {"tokens_per_second": tokens / took})
                wish = max(checkpoints.wish, int(position.step == total))
                checkpoints.after_step(group.highest(wish, _device(model)), position, model, optimizer)
            last = measure(
                model, validation, settings.batch_size, group, low,
                lambda: checkpoints.between_batches(position, model, optimizer),
            )  # fmt: skip
            on_epoch(epoch + 1, last)
    return last | {
        "train_examples_per_second": len(train.labels) * settings.epochs / position.seconds,
        "train_tokens_per_second": sum(lengths) * settings.epochs / position.seconds,
        "train_seconds": position.seconds,
    }


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: Examples, batch: list[int], group: Group, low: bool,
    limit: PassLimit,
) -> float:  # fmt: skip
    share = shares(batch, train.lengths, group.size)[group.rank]
    lengths = [train.lengths[index] for index in share or batch[:1]]
    attempt = functools.partial(_gradients, model, train, share, batch, group, low, limit)
    loss = limit.keeping(attempt, optimizer.zero_grad, sum(lengths), max(lengths), alone=group.size == 1)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(group.sum(loss / group.size))


def _gradients(
    model: nn.Module, train: Examples, share: list[int], batch: list[int], group: Group, low: bool, limit: PassLimit
) -> torch.Tensor:
    """Add the share's gradients to the parameters; gives its part of the batch's mean loss, times the group's size."""
    # DDP averages gradients over processes: weigh each share so that the average is the mean over the whole batch.
    weight = group.size / len(batch) if share else 0.0
    parts = passes(share or batch[:1], train.lengths, limit.tokens)
    total = torch.zeros((), device=_device(model))
    for part in parts:
        labels = torch.tensor([train.labels[index] for index in part], device=_device(model))
        with group.alone(model) if part is not parts[-1] else nullcontext():
            logits = _logits(model, train, part, low)
            loss = _loss(logits, labels, train.weights and [train.weights[index] for index in part]) * weight
            loss.backward()
        total = total + loss.detach()
    return total


def _loss(logits: torch.Tensor, labels: torch.Tensor, weights: list[float] | None) -> torch.Tensor:
    """Cross-entropy summed over the rows, each times its weight."""
    if weights is None:
        return nn.functional.cross_entropy(logits, labels, reduction="sum")
    each = nn.functional.cross_entropy(logits, labels, reduction="none")
    return (each * torch.tensor(weights, device=each.device)).sum()


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
) -> Numbers:
    """Mean cross-entropy and accuracy on held-out texts; every process takes its share of the batches.

    The answer to a text in windows is the mean of the windows' probabilities, as it is where the model serves.

    Args:
        model: takes token rows.
        examples: what is measured.
        batch_size: rows in half a batch.
        group: the processes that measure together.
        low: whether in bf16.
        on_batch: called after each batch.
    """
    model.eval()
    order = sorted(range(len(examples.labels)), key=lambda index: len(examples.input_ids[index]))
    batches = [order[at : at + 2 * batch_size] for at in range(0, len(order), 2 * batch_size)]
    score = _score_windows if examples.windows else _score_rows
    answers = _answers(model, examples, batches[group.rank :: group.size], low, on_batch)
    loss, right = score(answers, examples, group, _device(model)).tolist()
    return {"validation_loss": loss, "validation_accuracy": right}


Answers = Iterator[tuple[list[int], torch.Tensor]]


def _answers(
    model: nn.Module, examples: Examples, batches: list[list[int]], low: bool, on_batch: Callable[[], None] | None
) -> Answers:
    for batch in batches:
        yield batch, _logits(model, examples, batch, low)
        if on_batch:
            on_batch()


def _score_rows(answers: Answers, examples: Examples, group: Group, device: torch.device) -> torch.Tensor:
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for batch, logits in answers:
        labels = torch.tensor([examples.labels[index] for index in batch], device=device)
        sums[0] += nn.functional.cross_entropy(logits, labels, reduction="sum")
        sums[1] += (logits.argmax(1) == labels).sum()
    return group.sum(sums) / len(examples.labels)


def _score_windows(answers: Answers, examples: Examples, group: Group, device: torch.device) -> torch.Tensor:
    """The same of texts, whose windows may be answered in several batches and processes."""
    counts = torch.tensor(examples.windows, device=device)
    text = torch.arange(len(counts), device=device).repeat_interleave(counts)
    labels = torch.tensor(examples.labels, device=device)[counts.cumsum(0) - counts]
    parts = [(batch, logits.double().softmax(1)) for batch, logits in answers]
    classes = group.highest(max((part.shape[1] for _, part in parts), default=0), device)
    chances = torch.zeros(len(counts), classes, dtype=torch.float64, device=device)
    for batch, part in parts:
        chances.index_add_(0, text[batch], part)
    chances = group.sum(chances) / counts[:, None]
    losses = -chances.gather(1, labels[:, None]).clamp_min(torch.finfo(torch.float64).tiny).log()
    return torch.stack([losses.mean(), (chances.argmax(1) == labels).double().mean()])
