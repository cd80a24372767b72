"""Partial fine-tuning against the HF Trainer on real text: all that three epochs take, the caching included.

Run: make bench, or python -m tests.benchmarks.tuning_speed --data imdb --tokens 256 --steps 8 --rounds 3

Every contender takes the same texts, checkpoint and batch size. `trainer`: the Trainer with its defaults, all
parameters tuned. `trainer_top`, `trainer_head`: the same with the lower layers, or the whole encoder, frozen the usual
way. `top`, `head`: this project's train.tune=top_layers (the upper 2 of 6) and head; `top_uncached`: without the cache.
The clock runs from the token rows to the trained weights, texts count once an epoch. Needs accelerate.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tests.benchmarks.rounds import CHECKPOINT, Facts, Stopwatch, alternate, report, table
from tests.benchmarks.train_speed import BATCH, WARM, token_rows, trainer

EPOCHS = 3
TOP = 2


def _ours(tune: Literal["top_layers", "head"], cache: bool = True) -> Callable[[Any], Facts]:
    def run(options: Any) -> Facts:
        import torch

        from tuneline.config import TrainConfig
        from tuneline.packing import classifier_for
        from tuneline.storage import CHECKPOINTS
        from tuneline.train.cache import above_the_cut
        from tuneline.train.freezing import freeze
        from tuneline.train.group import Group
        from tuneline.train.loop import Examples, train_loop
        from tuneline.train.train import load_network

        rows, labels = token_rows(options)
        torch.manual_seed(options.seed)
        network = load_network(CHECKPOINT, [str(label) for label in sorted(set(labels))])
        settings = TrainConfig(
            epochs=EPOCHS, batch_size=BATCH, seed=options.seed, tune=tune, top_layers=TOP, cache=cache,
            precision=options.precision,
        )  # fmt: skip
        freeze(network, settings)
        classifier = classifier_for(network)

        def fit(start: int, stop: int) -> Facts:
            parts = {
                "train": Examples(rows[start:stop], labels[start:stop]), "validation": Examples(rows[:1], labels[:1]),
            }  # fmt: skip
            watch = Stopwatch()
            with above_the_cut(classifier, parts, settings, Group(), {"rows": [start, stop]}) as (tuned, found):
                train_loop(tuned, found["train"], found["validation"], settings, lambda *_: None, lambda *_: None)
            return watch.read((stop - start) * EPOCHS)

        with tempfile.TemporaryDirectory() as folder:
            os.environ[CHECKPOINTS] = folder
            fit(0, BATCH * WARM)
            return fit(BATCH * WARM, len(rows))

    return run


def _freeze_lower(network: Any) -> None:
    for module in (network.bert.embeddings, *network.bert.encoder.layer[:-TOP]):
        module.requires_grad_(False)


def _freeze_encoder(network: Any) -> None:
    for module in (network.bert.embeddings, network.bert.encoder):
        module.requires_grad_(False)


CONTENDERS: dict[str, Callable[[Any], Facts]] = {
    "trainer": trainer(epochs=EPOCHS),
    "trainer_top": trainer(_freeze_lower, EPOCHS),
    "trainer_head": trainer(_freeze_encoder, EPOCHS),
    "top": _ours("top_layers"),
    "top_uncached": _ours("top_layers", cache=False),
    "head": _ours("head"),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="imdb", choices=["imdb", "ag_news"])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8, help="batches an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if report(options.one, CONTENDERS, options):
        return
    arguments = ["--data", options.data, "--tokens", str(options.tokens), "--steps", str(options.steps)]
    arguments += ["--precision", options.precision]
    found = alternate(f"tests.benchmarks.{Path(__file__).stem}", options.contenders, options.rounds, arguments)
    for base in ("trainer", "trainer_top", "trainer_head"):
        if base in found:
            print(table(found, base), end="\n\n")


if __name__ == "__main__":
    main()
