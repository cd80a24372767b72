"""How near `tuneline plan` comes to what the training then takes: seconds of all steps, and peak memory.

Run: python -m tests.benchmarks.plan_accuracy quickstart imdb ag_news; cases are below. TUNELINE_DATA names the data.

Each case is planned, trained and planned again, each in a process of its own, so that a machine that is getting busier
shows as a difference between the two plans. Beside wall time stands the processor time of the steps, which others that
want the same cores change less.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.rounds import CHECKPOINT, ROOT, data_folder

EMBEDDED = f"model.name={CHECKPOINT}"


def cases() -> dict[str, list[str]]:
    """Arguments of `tuneline plan`, by name."""

    def real(name: str, rows: int, *more: str) -> list[str]:
        files = [f"data.{split}={data_folder() / name / split}.parquet" for split in ("train", "test")]
        sizes = [f"data.max_{split}={rows}" for split in ("train", "validation", "test")]
        return [name, EMBEDDED, *files, *sizes, "train.epochs=1", *more]

    imdb = ["model.max_length=256", "train.encoder_dropout=false"]
    return {
        "quickstart": ["quickstart"],
        "imdb": real("imdb", 320, *imdb),
        "imdb fp32, passes of 2048": real("imdb", 160, *imdb, "train.precision=fp32", "train.pass_tokens=2048"),
        "imdb top_layers, 3 epochs": real("imdb", 320, *imdb, "train.tune=top_layers", "train.epochs=3"),
        "imdb head, 3 epochs": real("imdb", 320, *imdb, "train.tune=head", "train.epochs=3"),
        "imdb lora": real("imdb", 160, *imdb, "train.tune=lora"),
        "ag_news": real("ag_news", 1000, "model.max_length=128"),
    }


def trained(arguments: list[str]) -> dict[str, float]:
    """Train as the recipe says, without the rest of the pipeline."""
    from tuneline.prepare.prepare import prepare
    from tuneline.train.train import train
    from tuneline_pipelines.recipes import load

    recipe = load(arguments[0], arguments[1:])
    ticks = [time.process_time()]

    class Clock:
        def metrics(self, values: dict[str, float], step: int = 0) -> None:
            del step
            if "loss" in values:
                ticks.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        prepare(recipe.data.model_copy(update={"label_errors": False}), recipe.model, Path(folder) / "data")
        found = train(Path(folder) / "data", recipe.model, recipe.train, Path(folder) / "model", Clock())
    # From step to step, without the first, which holds all before it, and the longest, which hold an epoch's measuring.
    spans = sorted(after - before for before, after in itertools.pairwise(ticks[1:]))
    quick = spans[: len(spans) + 1 - recipe.train.epochs]
    found["cpu"] = sum(quick) / len(quick) * (len(spans) + 1)
    return found


def planned(arguments: list[str]) -> dict[str, Any]:
    """What the command tells."""
    command = [sys.executable, "-c", "from tuneline_pipelines.cli import main; main()", "plan", *arguments, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT).stdout)


def _row(name: str, plans: list[dict[str, Any]], real: dict[str, float], took: list[float]) -> str:
    from tuneline.train.forecast import STEP_MB

    def cells(of: Any) -> str:
        return " / ".join(f"{of(one):,.1f}" for one in plans)

    def work(one: dict[str, Any]) -> float:
        on = one["measured_on"]
        return one["seconds"]["steps"]["expected"] * on["cpu_share"] * on["threads"]

    def steps(one: dict[str, Any]) -> dict[str, float]:
        return one["seconds"]["steps"]

    def memory(one: dict[str, Any]) -> float:
        return one["memory"]["peak_mb"] - STEP_MB

    ranges = " / ".join(f"{steps(one)['low']:.1f} to {steps(one)['high']:.1f}" for one in plans)
    first = f"{cells(lambda one: steps(one)['expected'])} ({ranges}) | {real['train_seconds']:.1f}"
    rest = f"{cells(memory)} | {real['train_peak_memory_mb']:.1f} | {' / '.join(f'{one:.0f}' for one in took)}"
    return f"| {name} | {first} | {cells(work)} | {real['cpu']:.1f} | {rest} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=None)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(trained(cases()[options.one])))
        return
    print("| case | steps s, planned | took | cpu s, planned | took | peak MB, planned | took | plan's own s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.names or cases():
        plans, took = [], []
        for turn in range(2):
            started = time.perf_counter()
            plans.append(planned(cases()[name]))
            took.append(time.perf_counter() - started)
            if turn == 0:
                command = [sys.executable, "-m", "tests.benchmarks.plan_accuracy", "--one", name]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
                real = json.loads(done.stdout.splitlines()[-1])
        print(_row(name, plans, real, took), flush=True)


if __name__ == "__main__":
    main()
