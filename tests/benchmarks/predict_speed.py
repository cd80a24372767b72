"""Prediction over a test split against transformers' pipeline: texts a second, and whether the answers are the same.

Run: python -m tests.benchmarks.predict_speed --data imdb --tokens 256 --texts 640 --rounds 5

A model is fine-tuned first, so that its answers mean something. `pipeline` is transformers.pipeline with batch_size=32;
`fp32` and `bf16` are the class that evaluates and serves (tuneline.serve.model), tokenizing included for all three.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.rounds import CHECKPOINT, Facts, Stopwatch, alternate, data_folder, draw, report, table

BATCH = 32
TRAINED_ON = 800


def fine_tune(options: Any, folder: Path) -> Path:
    """A model of the product's own, through prepare and train."""
    import pyarrow.parquet as pq

    from tuneline.config import DataConfig, ModelConfig, TrainConfig
    from tuneline.prepare.prepare import prepare
    from tuneline.train.train import train

    for split in ("train", "test"):
        source = data_folder() / options.data / f"{split}.parquet"
        pq.write_table(pq.read_table(source, columns=["text", "label"]), folder / f"{split}.parquet")
    data = DataConfig(
        train=str(folder / "train.parquet"), test=str(folder / "test.parquet"), max_train=TRAINED_ON, max_test=BATCH,
        max_validation=BATCH,
    )  # fmt: skip
    model = ModelConfig(name=CHECKPOINT, max_length=options.tokens)
    prepare(data, model, folder / "data")
    train(folder / "data", model, TrainConfig(epochs=2, encoder_dropout=True), folder / "model")
    return folder / "model"


def _keep(options: Any, name: str, probabilities: Sequence[Sequence[float]]) -> None:
    path = Path(options.model) / f"../{name}-{options.seed}.json"
    path.write_text(json.dumps([[float(value) for value in row] for row in probabilities]))


def _ours(precision: str) -> Callable[[Any], Facts]:
    def run(options: Any) -> Facts:
        from tuneline.serve.model import Classifier

        texts, _ = draw(options.data, "test", options.texts, options.seed)
        classifier = Classifier(Path(options.model), precision)
        classifier.predict_proba(texts[:BATCH])
        watch = Stopwatch()
        probabilities = classifier.predict_proba(texts, batch_size=BATCH)
        facts = watch.read(len(texts))
        _keep(options, precision, probabilities.tolist())
        return facts

    return run


def _pipeline(options: Any) -> Facts:
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline

    texts, _ = draw(options.data, "test", options.texts, options.seed)
    network: Any = AutoModelForSequenceClassification.from_pretrained(options.model)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(options.model) / "tokenizer.json"), pad_token="[PAD]", model_max_length=options.tokens
    )
    answer: Any = pipeline("text-classification", model=network, tokenizer=tokenizer, batch_size=BATCH, top_k=None)
    answer(texts[:BATCH], truncation=True)
    watch = Stopwatch()
    found = answer(texts, truncation=True)
    facts = watch.read(len(texts))
    order = list(network.config.label2id)
    scores = [{one["label"]: one["score"] for one in row} for row in found]
    _keep(options, "pipeline", [[row[label] for label in order] for row in scores])
    return facts


CONTENDERS: dict[str, Callable[[Any], Facts]] = {
    "pipeline": _pipeline, "fp32": _ours("fp32"), "bf16": _ours("bf16")
}  # fmt: skip


def agreement(folder: Path, rounds: int) -> str:
    """How often each contender gives the pipeline's label, and how near to the boundary the others lie."""
    import numpy as np

    lines = ["", "| against pipeline | same label | furthest disagreement from the boundary | largest difference |"]
    lines.append("|---|---|---|---|")
    for name in ("fp32", "bf16"):
        ours, theirs = (
            np.concatenate([json.loads((folder / f"{who}-{number}.json").read_text()) for number in range(rounds)])
            for who in (name, "pipeline")
        )
        other = ours.argmax(1) != theirs.argmax(1)
        best = np.sort(theirs, 1)
        margin = float(((best[:, -1] - best[:, -2]) / 2)[other].max(initial=0))
        lines.append(f"| {name} | {1 - other.mean():.4f} | {margin:.4f} | {np.abs(ours - theirs).max():.4f} |")
    return "\n".join(lines)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="imdb", choices=["imdb", "ag_news"])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--texts", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if report(options.one, CONTENDERS, options):
        return
    with tempfile.TemporaryDirectory() as folder:
        model = fine_tune(options, Path(folder))
        print("the model is trained", file=sys.stderr)
        arguments = ["--data", options.data, "--tokens", str(options.tokens), "--texts", str(options.texts)]
        arguments += ["--model", str(model)]
        found = alternate(f"tests.benchmarks.{Path(__file__).stem}", list(CONTENDERS), options.rounds, arguments)
        print(f"{options.data}, {options.tokens} tokens, {options.texts} texts, {options.rounds} rounds\n")
        print(table(found, "pipeline"))
        print(agreement(Path(folder), options.rounds))


if __name__ == "__main__":
    main()
