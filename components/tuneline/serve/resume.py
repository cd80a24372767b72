"""A file of any size labelled into another one. Killed at any moment, the same command goes on from where it was.

Until the output is there, two files lie beside it: `.NAME.answers`, the probabilities in 32 bits, a row a text, and
`.NAME.plan`, which model, texts and columns they are of. The output itself is written from both at the end, whole.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tuneline import registry
from tuneline.artifacts import read_json, sha256_file, write_json
from tuneline.errors import InputError
from tuneline.progress import left
from tuneline.serve.files import Texts, answered, check_form, counted, load, read, write
from tuneline.tables import local_file

if TYPE_CHECKING:
    import numpy as np

    from tuneline.serve.model import Classifier

CHUNK = 256
"""Rows between two savings: seconds of work."""
Tell = Callable[[int, int, str], None]
"""Called with the texts done, the total, and a note."""
Remark = Callable[[str], None]


def predict_to(
    reference: str, file: str, columns: Sequence[str], out: Path, tell: Tell, remark: Remark,
    precision: str = "fp32",
) -> None:  # fmt: skip
    """Label the texts of a file.

    Args:
        reference: MODEL@alias or MODEL/VERSION.
        file: CSV, TSV, JSON Lines or Parquet.
        columns: the column of texts, and for a model of pairs that of the second texts.
        out: a .csv, .jsonl or .parquet file.
        tell: of the progress.
        remark: told where the work is taken up again, or why it is not.
        precision: fp32 or bf16.

    Raises:
        InputError: no such model or file, no such column, no rows, one column where the model needs two, a file that
            changes meanwhile, or another command that writes the same output.
    """
    check_form(out)
    path = local_file(file, "FILE")
    total, seen = counted(file, columns), _seen(path)
    version = registry.find(reference)
    plan: dict[str, Any] = {
        "model": f"{version.name}/{version.version}", "weights": version.tags.get("tuneline.weights_sha256", ""),
        "texts": sha256_file(path), "columns": list(columns), "precision": precision, "rows": total,
    }  # fmt: skip
    answers, noted = out.with_name(f".{out.name}.answers"), out.with_name(f".{out.name}.plan")
    with _only_writer(answers, out) as stream:
        if not _same(plan, noted, remark):
            stream.truncate(0)
            write_json(noted, plan)
        classifier = load(version, precision=precision)
        _answer(classifier, read(file, columns), total, stream, tell, remark)
        write(_rows(read(file, columns), classifier, answers, path, seen), out)
        stream.truncate(0)


@contextmanager
def _only_writer(answers: Path, out: Path) -> Iterator[BinaryIO]:
    """The file of answers, which no other command writes while this lasts."""
    try:
        stream = answers.open("ab")
    except OSError as error:
        raise InputError(f"--output: {out}: cannot be written: {error.strerror}") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"--output: another command is writing {out}; name another file") from None
        try:
            yield stream
        finally:
            if not answers.stat().st_size:  # nothing to go on from
                answers.unlink()
                answers.with_suffix(".plan").unlink(missing_ok=True)


def _same(plan: dict[str, Any], noted: Path, remark: Remark) -> bool:
    """Whether the answers that are there are this plan's; if not, that is told."""
    try:
        found = read_json(noted)
    except (OSError, ValueError):
        return False
    if found == plan:
        return True
    if found.get("model") != plan["model"]:
        why = f"they are {found.get('model')}'s, and {plan['model']} is asked; name the version to go on"
    else:
        why = "they are of another file, column or precision"
    remark(f"answers of an earlier command are dropped: {why}")
    return False


def _answer(
    classifier: Classifier, rows: Iterator[Texts], total: int, stream: BinaryIO, tell: Tell, remark: Remark
) -> None:
    """Append the probabilities of all rows that have none yet."""
    width = 4 * len(classifier.labels)
    done = first = min(os.fstat(stream.fileno()).st_size // width, total)
    stream.truncate(done * width)  # a row that was cut off in the middle
    if done:
        remark(f"going on after {done} of {total} texts")
    started, source = time.monotonic(), islice(rows, done, None)
    while part := list(islice(source, CHUNK)):
        columns = [list(column) for column in zip(*part, strict=True)]
        stream.write(classifier.predict_proba(*columns).astype("<f4").tobytes())
        stream.flush()
        done += len(part)
        tell(done, total, f"texts | ETA {left(time.monotonic() - started, done - first, total - done)}")


def _rows(
    rows: Iterator[Texts], classifier: Classifier, answers: Path, path: Path, seen: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """The rows of the output; at their end the input must still be what it was."""
    import numpy as np

    found: np.ndarray = np.memmap(answers, "<f4", "r").reshape(-1, len(classifier.labels))
    for start in range(0, len(found), CHUNK):
        part = np.array(found[start : start + CHUNK])
        for given, row, told, score in zip(islice(rows, len(part)), part, *classifier.told(part), strict=True):
            yield answered(given, classifier.labels, row, told, score)
    if _seen(path) != seen:
        raise InputError(f"{path}: has changed while it was read; run the command again")


def _seen(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns
