"""Accuracy over seeds, paired: this project's training and its ways to tune a part, against the HF Trainer's defaults.

Run: python -m tests.benchmarks.seed_accuracy --out seed_accuracy.jsonl
then: python -m tests.benchmarks.seed_accuracy --out seed_accuracy.jsonl --report
on a GPU machine that has torch, transformers, accelerate, tokenizers, pyarrow, pydantic, PyYAML, scipy and no more:
PYTHONPATH=components TUNELINE_DATA=DATA python -m tests.benchmarks.seed_accuracy --checkpoint DIR --jobs 6 --out FILE

A seed draws 1,000 training and 2,000 test reviews of IMDB (128 tokens), the same for all contenders, and decides head,
dropout and order. `trainer`: the Trainer with its defaults and DataCollatorWithPadding; `ours`: train_loop with the
product's defaults; the others: `ours` with train.tune. NAME@RATE is a contender with a learning rate of its own. All
are measured by one function, in fp32. Each runs in a process of its own, on the GPU where torch sees one; what a file
has already is not run again, so that the same command goes on after an interruption. With --jobs above 1 the seconds
say little.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.benchmarks.rounds import CHECKPOINT, ROOT, draw, token_ids
from tests.benchmarks.seed_tables import Result, key, known, tables

BATCH = 16
TRAINER = "trainer"
FEW = 3
"""Seeds of the ways to tune a part."""

# What each contender changes in the product's defaults. The rates of those that tune little are the best of a few, on
# seeds that are not counted here (docs/experiments.md).
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "top_layers": {"tune": "top_layers", "top_layers": 2},
    "top_layers_uncached": {"tune": "top_layers", "top_layers": 2, "cache": False},
    "head": {"tune": "head", "learning_rate": 3e-3},
    "head_uncached": {"tune": "head", "learning_rate": 3e-3, "cache": False},
    "bitfit": {"tune": "bitfit", "learning_rate": 1e-3},
    "lora": {"tune": "lora", "learning_rate": 1e-3},
}

Split = tuple[list[list[int]], list[int]]


def texts_of(options: Any) -> tuple[Split, Split, str]:
    """Token ids and labels of the seed's training and test texts, and a hash that tells them from others."""
    from tuneline import checkpoint

    folder, splits = checkpoint.resolve(options.checkpoint), []
    for name, count in (("train", options.texts), ("test", options.tests)):
        texts, labels = draw("imdb", name, count, options.seed)
        splits.append((token_ids(folder, texts, options.tokens), labels))
    return splits[0], splits[1], hashlib.sha256(json.dumps(splits).encode()).hexdigest()[:12]


def fit_ours(name: str, split: Split, options: Any) -> tuple[Any, float, str]:
    """The network tuned by this project's loop, as the train step puts it together, the seconds, and the precision."""
    import torch

    from tuneline.config import TrainConfig
    from tuneline.packing import PackedClassifier, classifier_for
    from tuneline.storage import CHECKPOINTS
    from tuneline.train import low_rank
    from tuneline.train.cache import above_the_cut
    from tuneline.train.freezing import freeze
    from tuneline.train.group import Group
    from tuneline.train.loop import Examples, train_loop
    from tuneline.train.precision import uses_bf16
    from tuneline.train.train import load_network
    from tuneline.train.vocabulary import bring_back, set_aside

    name, _, rate = name.partition("@")
    changes = OURS[name] | ({"learning_rate": float(rate)} if rate else {})
    settings = TrainConfig(**{"epochs": options.epochs, "batch_size": BATCH, "seed": options.seed, **changes})
    torch.manual_seed(settings.seed)
    network = load_network(options.checkpoint, [str(label) for label in sorted(set(split[1]))])
    freeze(network, settings)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    classifier = classifier_for(network)
    rows, aside, started = split[0], None, time.perf_counter()
    if network.get_input_embeddings().weight.requires_grad and isinstance(classifier, PackedClassifier):
        aside = set_aside(network, rows)
    if aside:
        rows = aside.ids(rows)
    parts = {"train": Examples(rows, split[1]), "validation": Examples(rows[:1], split[1][:1])}
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CHECKPOINTS] = folder
        with above_the_cut(classifier, parts, settings, Group(), {}) as (tuned, found):
            facts = train_loop(tuned, found["train"], found["validation"], settings, lambda *_: None, lambda *_: None)
    if aside:
        bring_back(network, aside, settings, len(rows), int(facts["train_steps"]))
    low_rank.merge(network)
    seconds = time.perf_counter() - started
    return network, seconds, "bf16" if uses_bf16(settings.precision, network.device) else "fp32"


def fit_trainer(split: Split, options: Any) -> tuple[Any, float, str]:
    """The network tuned by the Trainer with its defaults, the seconds, and the precision."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
        set_seed,
    )  # fmt: skip

    from tuneline import checkpoint

    folder = checkpoint.resolve(options.checkpoint)
    set_seed(options.seed)
    labels = len(set(split[1]))
    network = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    data: Any = [
        {"input_ids": row, "attention_mask": [1] * len(row), "labels": label}
        for row, label in zip(*split, strict=True)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out, num_train_epochs=options.epochs, per_device_train_batch_size=BATCH, seed=options.seed,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(network, arguments, DataCollatorWithPadding(tokenizer), train_dataset=data)
        started = time.perf_counter()
        trainer.train()
        return network, time.perf_counter() - started, "fp32"


def run_one(name: str, options: Any) -> Result:
    """Train a contender with a seed, and measure it on the test texts."""
    import torch
    import transformers

    from tuneline.packing import classifier_for
    from tuneline.train.group import Group
    from tuneline.train.loop import Examples, measure

    train, test, drawn = texts_of(options)
    network, seconds, precision = fit_trainer(train, options) if name == TRAINER else fit_ours(name, train, options)
    with torch.inference_mode():
        found = measure(classifier_for(network), Examples(*test), 4 * BATCH, Group())
    on_gpu = network.device.type == "cuda"
    return {
        **wanted(name, options.seed, options), "accuracy": found["validation_accuracy"], "seconds": round(seconds, 2),
        "drawn": drawn, "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "precision": precision,
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        },
    }  # fmt: skip


def wanted(name: str, seed: int, options: Any) -> Result:
    """What tells one result from another."""
    setting = {part: getattr(options, part) for part in ("texts", "tests", "tokens", "epochs")}
    return {"contender": name, "seed": seed, **setting}


def run_all(options: Any) -> None:
    """Run what the file lacks, in the order of the contenders, and add each result to it when it is there."""
    have = {key(result) for result in known(options.out)}
    every = [(name, seed) for name in options.contenders for seed in seeds(name, options)]
    missing = [(name, seed) for name, seed in every if key(wanted(name, seed, options)) not in have]
    failed = []

    def run(job: tuple[str, int]) -> None:
        name, seed = job
        command = [sys.executable, "-m", "tests.benchmarks.seed_accuracy", "--one", name, "--seed", str(seed)]
        for part in ("texts", "tests", "tokens", "epochs", "checkpoint"):
            command += [f"--{part}", str(getattr(options, part))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        if done.returncode:
            failed.append(f"{name}, seed {seed}")
            return
        line = done.stdout.splitlines()[-1]
        with options.out.open("a") as file:
            file.write(f"{line}\n")
        print(line, file=sys.stderr, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, missing))
    if failed:
        raise SystemExit(f"failed: {'; '.join(failed)}")


def seeds(name: str, options: Any) -> range:
    """The seeds of a contender: all for the two that are compared, the first few for the others."""
    count = options.seeds if name in (TRAINER, "ours") else min(FEW, options.seeds)
    return range(options.first_seed, options.first_seed + count)


def _contender(name: str) -> str:
    if name != TRAINER and name.partition("@")[0] not in OURS:
        raise argparse.ArgumentTypeError(f"{name}: none of {TRAINER}, {', '.join(OURS)}")
    return name


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("seed_accuracy.jsonl"), help="results, a line each")
    parser.add_argument("--report", action="store_true", help="print the tables of what is there, and run nothing")
    parser.add_argument("--contenders", nargs="+", default=["ours", TRAINER, *list(OURS)[1:]], type=_contender)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--checkpoint", default=CHECKPOINT, help="a folder, or pkg:NAME")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=_contender, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.resolve()
    if options.one:
        print(json.dumps(run_one(options.one, options)))
        return
    if not options.report:
        run_all(options)
    print(tables(known(options.out), TRAINER, "ours"))


if __name__ == "__main__":
    main()
