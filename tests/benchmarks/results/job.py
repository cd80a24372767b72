"""One job in a process of its own: the pipeline's own training and answers, on data that is prepared already.

What `tuneline run` does with the same words, without MLflow and the report: the same functions prepare, train and
answer, in fp32, so that a row's command gives the row's first seed. Seconds are the processor's: a job has one core,
and others that want it too would lengthen those of a clock.
"""

from __future__ import annotations

import base64
import os
import signal
import tempfile
import time
import traceback
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.results.plan import LINEAR, RATE, ROWS, SCENARIOS, TIMED, Job
from tests.benchmarks.rounds import data_folder, peak_mib

if TYPE_CHECKING:
    import numpy as np

    from tuneline.config import Recipe

Line = dict[str, Any]
OF_TEST = ("accuracy", "macro_f1", "log_loss")


def recipe_of(words: tuple[str, ...]) -> Recipe:
    """What `tuneline run` makes of these words.

    Raises:
        InputError: they are no recipe.
    """
    from tuneline_pipelines.recipes import load

    name, *overrides = (word.replace("$TUNELINE_DATA", str(data_folder())) for word in words)
    return load(name, overrides)


def main(pipe: Connection, job: Job, data: Path, states: Path) -> None:
    """The process: sends ("done", line) or ("failed", what happened).

    Args:
        pipe: to the one that asked.
        job: what to do.
        data: its PreparedData.
        states: folder for what frozen layers give, which jobs that choose a rate share: their seconds do not count.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends this process
    if job.part == RATE:
        os.environ["TUNELINE_CHECKPOINTS"] = str(states)
    try:
        pipe.send(("done", run(job, data)))
    except Exception as error:
        pipe.send(("failed", f"{error}\n{traceback.format_exc()}"))


def run(job: Job, data: Path) -> Line:
    """Do it, and give the line of the results file."""
    from tuneline.artifacts import PreparedData

    manifest = PreparedData.load(data)
    work = _linear if job.mode == LINEAR else _chosen if job.part == RATE else _trained
    return {
        "part": job.part, "scenario": job.scenario, "mode": job.mode, "seed": job.seed, "command": job.command,
        "rows": manifest.rows, **work(job, data),
    }  # fmt: skip


def _chosen(job: Job, data: Path) -> Line:
    """Trained, and measured on validation rows alone."""
    from tuneline.train.train import train

    recipe, started = recipe_of(job.words), time.process_time()
    numbers = train(data, recipe.model, recipe.train, None)
    kept = ("validation_accuracy", "validation_macro_f1", "validation_loss")
    return {
        "rate": recipe.train.learning_rate, "seconds": time.process_time() - started,
        **{name: numbers[name] for name in kept if name in numbers},
    }  # fmt: skip


def _trained(job: Job, data: Path) -> Line:
    from tuneline.artifacts import read_split
    from tuneline.inputs import of_table
    from tuneline.serve.model import Classifier
    from tuneline.train.train import train

    recipe, table = recipe_of(job.words), read_split(data, "test")
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        numbers = train(data, recipe.model, recipe.train, Path(folder) / "model")
        seconds = time.process_time() - started
        classifier = Classifier(Path(folder) / "model")
        started = time.process_time()
        probabilities = classifier.predict_proba_inputs(of_table(table))
        rate = len(table) / (time.process_time() - started)
        return {
            "seconds": seconds, "epochs": recipe.train.epochs, "rate": recipe.train.learning_rate,
            "peak_mib": numbers["train_peak_memory_mb"] * 1e6 / 2**20, "texts_per_second": rate,
            **_answers(job, data, probabilities), **_latency(job, classifier.predict_proba, table),
        }  # fmt: skip


def _linear(job: Job, data: Path) -> Line:
    """TF-IDF with logistic regression, as evaluate sets it beside every model."""
    from tuneline.artifacts import PreparedData, read_split
    from tuneline.evaluate.baseline import fitted, proba, texts_of

    table, train, classes = read_split(data, "test"), read_split(data, "train"), len(PreparedData.load(data).labels)
    started = time.process_time()
    model = fitted(texts_of(train), train.column("label").to_pylist())
    seconds = time.process_time() - started
    started = time.process_time()
    probabilities = proba(model, texts_of(table), classes)
    rate = len(table) / (time.process_time() - started)
    return {
        "seconds": seconds, "peak_mib": peak_mib(), "texts_per_second": rate,
        **_answers(job, data, probabilities), **_latency(job, lambda texts: proba(model, texts, classes), table),
    }  # fmt: skip


def _answers(job: Job, data: Path, probabilities: np.ndarray) -> Line:
    """The product's metrics of the test rows, and the rows' labels and answers, so that they can be paired."""
    from tuneline.artifacts import PreparedData, read_split
    from tuneline.evaluate.metrics import measure

    manifest, labels = PreparedData.load(data), read_split(data, "test").column("label").to_numpy()
    found = measure(labels, probabilities)
    outside = SCENARIOS[job.scenario].outside
    return {
        "metrics": {name: list(found[name]) for name in OF_TEST}, "test_sha256": manifest.sha256["test"],
        "classes": len(manifest.labels), "outside": manifest.labels.index(outside) if outside else None,
        "labels": packed(labels), "answers": packed(probabilities.argmax(1)),
    }  # fmt: skip


def _latency(job: Job, predict: Any, table: Any) -> Line:
    """Of one text alone, in processor time: others that want the core do not count."""
    from tuneline.evaluate.speed import latency

    if job.part != ROWS or job.mode not in TIMED:
        return {}
    found = latency(predict, table.column("text").to_pylist(), None, time.process_time)
    return {"latency_ms": found["latency_p50_ms"]}


def packed(values: np.ndarray) -> str:
    """Class indices as text: one byte each, compressed."""
    import numpy as np

    return base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes(), 9)).decode()


def unpacked(text: str) -> np.ndarray:
    """What `packed` packed."""
    import numpy as np

    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).astype(int)
