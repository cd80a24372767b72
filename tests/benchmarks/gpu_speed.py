"""Fine-tuning on a GPU against the HF Trainer: tokens a second, MFU and peak memory, alternating in one process.

Run: python -m tests.benchmarks.gpu_speed --tokens 512 --batch 64 --steps 30 --rounds 5 --tokenizer FOLDER

A BERT of the base size with random weights learns real IMDB. All take the same texts, batch size and number of
optimizer steps in a round: `trainer`, the Trainer in bf16 with SDPA and DataCollatorWithPadding; `rival`, the same
without dropout in the encoder and with texts of like length together; `eager` and `compiled`, this project's loop. MFU
counts the texts' own tokens for all alike (train/meters.py). Needs accelerate, and a GPU with bf16.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.rounds import CHECKPOINT, draw, token_ids
from tuneline.config import TrainConfig
from tuneline.packing import PackedClassifier
from tuneline.train.loop import Examples, train_loop
from tuneline.train.meters import Work, peak_flops

Facts = dict[str, float]
Rows = tuple[list[list[int]], list[int]]
BASE = {"vocab_size": 30522, "num_labels": 2}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.1}
GPU = torch.device("cuda", 0)


def _rows(options: Any, count: int, seed: int) -> Rows:
    texts, labels = draw("imdb", "train", count, seed)
    return token_ids(_tokenizer(options), texts, options.tokens), labels


def _tokenizer(options: Any) -> Path:
    """The folder of tokenizer.json."""
    from tuneline import checkpoint

    return Path(options.tokenizer) if options.tokenizer else checkpoint.resolve(CHECKPOINT)


def _network(**changes: float) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**BASE, **changes)).to(GPU)


class Ours:
    """This project's loop."""

    def __init__(self, options: Any, compiled: bool) -> None:
        self.classifier = PackedClassifier(_network(**STILL))
        self.settings = TrainConfig(
            epochs=1, batch_size=options.batch, precision="bf16", pass_tokens=options.pass_tokens, learning_rate=2e-5
        )
        if compiled:
            assert self.classifier.compile_layers()

    def fit(self, rows: Rows) -> float:
        """Seconds a step, from the end of the first one on."""
        times: list[float] = []
        few = Examples(rows[0][:1], rows[1][:1])
        note = lambda *_: times.append(time.perf_counter())  # noqa: E731
        train_loop(self.classifier, Examples(*rows), few, self.settings, note, lambda *_: None)
        return (times[-1] - times[0]) / (len(times) - 1)


class Trainers:
    """The HF Trainer."""

    def __init__(self, options: Any, changes: dict[str, float], **arguments: Any) -> None:
        from transformers import PreTrainedTokenizerFast

        self.options, self.arguments, self.network = options, arguments, _network(**changes)
        file = str(_tokenizer(options) / "tokenizer.json")
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, pad_token="[PAD]")
        assert self.network.config._attn_implementation == "sdpa"

    def fit(self, rows: Rows) -> float:
        """Seconds a step, from the end of the first one on."""
        from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

        data: Any = [
            {"input_ids": row, "attention_mask": [1] * len(row), "labels": label}
            for row, label in zip(*rows, strict=True)
        ]
        times: list[float] = []

        class Clock(TrainerCallback):
            def on_step_end(self, arguments: Any, state: Any, *_: Any, **__: Any) -> None:
                if state.global_step in (1, state.max_steps):
                    torch.cuda.synchronize()
                    times.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as out:
            arguments = TrainingArguments(
                out, num_train_epochs=1, per_device_train_batch_size=self.options.batch, report_to="none", bf16=True,
                save_strategy="no", logging_strategy="no", disable_tqdm=True, learning_rate=2e-5, **self.arguments,
            )  # fmt: skip
            collator = DataCollatorWithPadding(self.tokenizer)
            Trainer(self.network, arguments, collator, train_dataset=data, callbacks=[Clock()]).train()
        return (times[-1] - times[0]) / (len(rows[0]) // self.options.batch - 1)


CONTENDERS: dict[str, Callable[[Any], Any]] = {
    "trainer": lambda options: Trainers(options, {}),
    "rival": lambda options: Trainers(options, STILL, train_sampling_strategy="group_by_length"),
    "eager": lambda options: Ours(options, compiled=False),
    "compiled": lambda options: Ours(options, compiled=True),
}


def _measured(contender: Any, rows: Rows, steps: int, work: Work, peak: float) -> Facts:
    torch.cuda.reset_peak_memory_stats()
    lengths = [len(row) for row in rows[0]]
    seconds = contender.fit(rows) * steps
    return {
        "texts/s": len(lengths) / seconds,
        "tokens/s": sum(lengths) / seconds,
        "MFU %": 100 * work.total(lengths) / seconds / peak,
        "peak GB": torch.cuda.max_memory_allocated() / 1e9,
    }


def _spread(values: list[float]) -> str:
    middle, low, high = (f"{value:,.4g}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def _profile(contender: Any, rows: Rows) -> str:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        contender.fit(rows)
    return str(found.key_averages().table(sort_by="self_cuda_time_total", row_limit=45, max_name_column_width=90))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pass-tokens", type=int, default=65536, help="train.pass_tokens of this project's loop")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--tokenizer", default="", help="folder of a tokenizer.json; by default the embedded one")
    parser.add_argument("--profile", type=Path, help="folder for a profile of each contender")
    options = parser.parse_args()
    work = Work.of(PackedClassifier(_network()))
    assert work
    peak, made, found = peak_flops(GPU, True), {}, {name: list[Facts]() for name in options.contenders}
    for name in options.contenders:
        started = time.perf_counter()
        made[name] = CONTENDERS[name](options)
        made[name].fit(_rows(options, options.batch * 4, seed=100))
        print(f"{name}: ready in {time.perf_counter() - started:.1f} s", flush=True)
    for seed in range(options.rounds):
        rows = _rows(options, options.batch * options.steps, seed)
        for name in options.contenders:
            found[name].append(_measured(made[name], rows, options.steps, work, peak))
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}: {peak / 1e12:.0f} TFLOP/s in bf16")
    print(f"IMDB, {options.tokens} tokens, {options.steps} steps of {options.batch}, {options.rounds} rounds\n")
    print(f"| contender | texts/s | tokens/s | MFU % | peak GB | speed over {options.contenders[0]} |")
    print("|---|---|---|---|---|---|")
    for name, rounds in found.items():
        cells = [_spread([one[key] for one in rounds]) for key in rounds[0]]
        pairs = zip(rounds, found[options.contenders[0]], strict=True)
        ratio = _spread([one["tokens/s"] / other["tokens/s"] for one, other in pairs])
        print(f"| {name} | {' | '.join(cells)} | {ratio} |")
    if options.profile:
        for name in options.contenders:
            text = _profile(made[name], _rows(options, options.batch * 4, seed=101))
            (options.profile / f"profile-{name}.txt").write_text(text)


if __name__ == "__main__":
    main()
