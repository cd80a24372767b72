"""Fine-tuning against the HF Trainer on real text: examples a second and peak memory, alternating in one run.

Run: make bench, or python -m tests.benchmarks.train_speed --data imdb --tokens 256 --steps 8 --rounds 5

Every contender takes the same texts, the same checkpoint, batch size and number of optimizer steps in a round:
`trainer`, the Trainer with its defaults and DataCollatorWithPadding; `rival`, the best that its settings give on a CPU
(bf16, no attention dropout, grouped by length); `bf16` and `fp32`, this project's loop. Needs accelerate.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tests.benchmarks.rounds import CHECKPOINT, Facts, Stopwatch, alternate, draw, report, table, token_ids

BATCH = 16
WARM = 2
"""Batches before the clock starts: the first ones fill caches, and make the optimizer's state."""


def token_rows(options: Any) -> tuple[list[list[int]], list[int]]:
    """Token ids and labels of the warm batches' texts and of options.steps batches more."""
    from tuneline import checkpoint

    texts, labels = draw(options.data, "train", BATCH * (options.steps + WARM), options.seed)
    return token_ids(checkpoint.resolve(CHECKPOINT), texts, options.tokens), labels


def _ours(precision: Literal["bf16", "fp32"]) -> Callable[[Any], Facts]:
    def run(options: Any) -> Facts:
        import torch

        from tuneline.config import TrainConfig
        from tuneline.packing import classifier_for
        from tuneline.train.loop import Examples, train_loop
        from tuneline.train.train import load_network

        rows, labels = token_rows(options)
        torch.manual_seed(options.seed)
        classifier = classifier_for(load_network(CHECKPOINT, [str(label) for label in sorted(set(labels))]))
        settings = TrainConfig(
            epochs=1, batch_size=BATCH, precision=precision, seed=options.seed, pass_tokens=options.pass_tokens
        )
        few = Examples(rows[:1], labels[:1])
        facts: list[Facts] = []

        def fit(start: int, stop: int) -> None:
            watch = Stopwatch()

            def note(step: int, total: int, _facts: Facts) -> None:
                if step == total:
                    facts.append(watch.read(stop - start))

            train_loop(classifier, Examples(rows[start:stop], labels[start:stop]), few, settings, note, lambda *_: None)

        fit(0, BATCH * WARM)
        fit(BATCH * WARM, len(rows))
        return facts[-1]

    return run


def trainer(freeze: Callable[[Any], None] = lambda _: None, epochs: int = 1, **changes: Any) -> Callable[[Any], Facts]:
    """The Trainer with its defaults, but for `changes` in its arguments; with any of them, attention drops nothing.

    Args:
        freeze: called with the network before training.
        epochs: passes over the texts that are measured.
        changes: of TrainingArguments.
    """

    def run(options: Any) -> Facts:
        from transformers import (
            AutoModelForSequenceClassification,
            DataCollatorWithPadding,
            PreTrainedTokenizerFast,
            Trainer,
            TrainerCallback,
            TrainingArguments,
        )  # fmt: skip

        from tuneline import checkpoint

        rows, labels = token_rows(options)
        folder = checkpoint.resolve(CHECKPOINT)
        network_changes = {"attention_probs_dropout_prob": 0.0} if changes else {}
        network = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=len(set(labels)), **network_changes
        )
        freeze(network)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
        data: Any = [
            {"input_ids": row, "attention_mask": [1] * len(row), "labels": label}
            for row, label in zip(rows, labels, strict=True)
        ]

        class Clock(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                self.watch = Stopwatch()

            def on_train_end(self, *_: Any, **__: Any) -> None:
                self.facts = self.watch.read(BATCH * options.steps * epochs)

        def fit(part: Any, clock: Clock, passes: int) -> None:
            with tempfile.TemporaryDirectory() as out:
                arguments = TrainingArguments(
                    out, num_train_epochs=passes, per_device_train_batch_size=BATCH, report_to="none", use_cpu=True,
                    save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=options.seed, **changes,
                )  # fmt: skip
                collator = DataCollatorWithPadding(tokenizer)
                Trainer(network, arguments, collator, train_dataset=part, callbacks=[clock]).train()

        clock = Clock()
        fit(data[: BATCH * WARM], clock, 1)
        fit(data[BATCH * WARM :], clock, epochs)
        return clock.facts

    return run


CONTENDERS: dict[str, Callable[[Any], Facts]] = {
    "trainer": trainer(),
    "rival": trainer(bf16=True, train_sampling_strategy="group_by_length"),
    "bf16": _ours("bf16"),
    "fp32": _ours("fp32"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="imdb", choices=["imdb", "ag_news"])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pass-tokens", type=int, default=8192, help="train.pass_tokens of this project's loop")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if report(options.one, CONTENDERS, options):
        return
    arguments = ["--data", options.data, "--tokens", str(options.tokens), "--steps", str(options.steps)]
    arguments += ["--pass-tokens", str(options.pass_tokens)]
    found = alternate(f"tests.benchmarks.{Path(__file__).stem}", options.contenders, options.rounds, arguments)
    print(f"{options.data}, {options.tokens} tokens, {options.steps} steps of {BATCH}, {options.rounds} rounds\n")
    print(table(found, options.contenders[0]))


if __name__ == "__main__":
    main()
