"""The loop's loss curve is the HF Trainer's, where both get the same batches and neither packs nor uses bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from tests.components.train.test_loop import ignore, network, toy
from tuneline.config import TrainConfig
from tuneline.packing import PackedClassifier, PaddedClassifier, pad
from tuneline.train.batches import epoch_batches
from tuneline.train.loop import Examples, train_loop

SETTINGS = TrainConfig(
    epochs=3, batch_size=8, learning_rate=2e-3, warmup_share=0.2, weight_decay=0.1, precision="fp32", seed=3
)


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """What DataCollatorWithPadding would make of them."""
    return pad([row["input_ids"] for row in rows], 0) | {"labels": torch.tensor([row["labels"] for row in rows])}


class FixedTrainer(Trainer):
    """The Trainer on batches that are given, all epochs' in one, keeping each step's loss."""

    def __init__(self, data: Examples, batches: list[list[int]], **rest: Any) -> None:
        rows = [{"input_ids": ids, "labels": label} for ids, label in zip(data.input_ids, data.labels, strict=True)]
        self.batches, self.losses = batches, []
        super().__init__(train_dataset=rows, data_collator=collate, **rest)

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=collate)

    def compute_loss(self, *args: Any, **rest: Any) -> Any:
        loss = super().compute_loss(*args, **rest)
        self.losses.append(float(loss.detach()))
        return loss


def curve_of_trainer(data: Examples, folder: Path) -> list[float]:
    batches = [
        batch
        for epoch in range(SETTINGS.epochs)
        for batch in epoch_batches(data.lengths, SETTINGS.batch_size, SETTINGS.seed, epoch)
    ]
    arguments = TrainingArguments(
        str(folder), num_train_epochs=1, per_device_train_batch_size=SETTINGS.batch_size, use_cpu=True,
        learning_rate=SETTINGS.learning_rate, weight_decay=SETTINGS.weight_decay, warmup_steps=SETTINGS.warmup_share,
        report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = FixedTrainer(data, batches, model=network(spread=0.3), args=arguments)
    trainer.train()
    return trainer.losses


@pytest.mark.parametrize("kind", [PaddedClassifier, PackedClassifier])
def test_the_loss_curve_is_the_trainers(kind, tmp_path):
    data = toy(60)
    losses: list[float] = []
    train_loop(
        kind(network(spread=0.3)), data, toy(4), SETTINGS, lambda *facts: losses.append(facts[2]["loss"]), ignore
    )
    expected = curve_of_trainer(data, tmp_path)
    assert len(expected) == 24
    assert expected[-1] < 0.8 * expected[0]  # so that a schedule or a decay that differs is seen
    assert losses == pytest.approx(expected, abs=1e-5)
