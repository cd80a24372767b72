"""Batch prediction over shards: plan, predict each shard, merge. The pipeline is tuneline_pipelines/batch.py.

The plan resolves the model's alias once, so that all shards are answered by one version however long they take, and
names the rows of each shard by files and their SHA-256, so that input that changes in between is refused. Every row
carries its number, by which the merge sees that none is missing, doubled or out of order. Each step may run again.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from tuneline import registry
from tuneline.artifacts import sha256_file
from tuneline.errors import InputError
from tuneline.progress import Progress, say
from tuneline.serve.files import Texts, check_form, label, load, named, read, write, write_json_lines, write_whole
from tuneline.step import Artifact, guarded, step
from tuneline.threads import within_quota

MAX_WORK_BYTES = 100_000  # KFP hands a list on as an argument


Shard = dict[str, Any]
"""A shard: model (MODEL/VERSION) and weights (their SHA-256), its first row, its number of rows, and its pieces: file,
sha256, and the file's rows from start to before stop. KFP hands ints in it on as floats."""


def plan(model: str, files: str, columns: Sequence[str], shards: int) -> list[Shard]:
    """Resolve the model, read and check every text, and cut the rows into shards of equal size.

    Args:
        model: MODEL@alias or MODEL/VERSION.
        files: a file, or a folder whose files are taken in the order of their names.
        columns: the column of texts, and for a model of pairs that of the second texts.
        shards: how many; fewer where there are fewer texts.

    Raises:
        InputError: no such model or file, a file that cannot be read, no texts, or too many pieces.
    """
    if shards < 1:
        raise InputError(f"shards: {shards} given; at least 1")
    version = registry.find(model)
    paths = _paths(files)
    counts = [sum(1 for _ in read(str(path), columns)) for path in paths]
    if not (rows := sum(counts)):
        raise InputError(f"{files}: holds no rows")
    hashes = [sha256_file(path) for path in paths]
    edges = [rows * number // min(shards, rows) for number in range(min(shards, rows) + 1)]
    answers = {
        "model": f"{version.name}/{version.version}",
        "weights": version.tags.get("tuneline.weights_sha256", ""),
    }
    work = [
        answers | {"first": start, "rows": stop - start, "pieces": list(_pieces(paths, counts, hashes, start, stop))}
        for start, stop in pairwise(edges)
    ]
    if len(json.dumps(work)) > MAX_WORK_BYTES:
        raise InputError(f"{files}: {len(paths)} files in {len(work)} shards are too many for KFP; join files")
    return work


def _paths(files: str) -> list[Path]:
    root = Path(files)
    if not root.is_dir():
        return [root]
    found = sorted(path for path in root.iterdir() if path.is_file() and path.name[0] not in "._")
    if not found:
        raise InputError(f"{files}: a folder without files")
    return found


def _pieces(paths: list[Path], counts: list[int], hashes: list[str], start: int, stop: int) -> Iterator[dict[str, Any]]:
    at = 0
    for path, count, digest in zip(paths, counts, hashes, strict=True):
        first, last = max(start - at, 0), min(stop - at, count)
        if first < last:
            yield {"file": str(path), "sha256": digest, "start": first, "stop": last}
        at += count


def predict_shard(shard: Shard, columns: Sequence[str], out: Path) -> None:
    """Answer the rows of one shard, as JSON Lines with each row's number, whole or not at all.

    Args:
        shard: one of the plan's.
        columns: as for plan.
        out: the file to write.

    Raises:
        InputError: an input file or the model is not what was planned with.
    """
    classifier = load(registry.find(shard["model"]), shard["weights"])
    progress = Progress("predict", int(shard["rows"]), "texts")

    def numbered() -> Iterator[dict[str, Any]]:
        for done, row in enumerate(label(classifier, _rows(shard["pieces"], columns)), start=1):
            yield {"row": int(shard["first"]) + done - 1, **row}
            progress.update(done)

    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(numbered(), out, write_json_lines)


def _rows(pieces: list[dict[str, Any]], columns: Sequence[str]) -> Iterator[Texts]:
    for piece in pieces:
        path = Path(piece["file"])
        if not path.is_file() or sha256_file(path) != piece["sha256"]:
            raise InputError(f"{path}: has changed or gone since the shards were planned; run the pipeline again")
        yield from islice(read(str(path), columns), int(piece["start"]), int(piece["stop"]))


def merge(parts: Iterable[Path], rows: int, out: Path, output: str = "") -> Counter[str]:
    """Put the shards together in the order of the rows.

    Args:
        parts: what predict_shard wrote, in any order.
        rows: how many there must be.
        out: the JSON Lines file to write.
        output: where to write the result besides, as .csv or .jsonl; empty for nowhere.

    Returns:
        How many texts got each label.

    Raises:
        InputError: a row is missing or doubled, or the output cannot be written.
    """
    ordered = sorted((path for path in parts if path.stat().st_size), key=lambda path: next(_answers(path))["row"])
    labels: Counter[str] = Counter()

    def checked() -> Iterator[dict[str, Any]]:
        count = 0
        for path in ordered:
            for row in _answers(path):
                if row["row"] != count:
                    raise InputError(f"row {count} expected, row {row['row']} found: a shard is missing or doubled")
                count += 1
                yield row
        if count != rows:
            raise InputError(f"{rows} rows expected, {count} found: a shard is missing or doubled")

    def counted() -> Iterator[dict[str, Any]]:
        for row in checked():
            labels[row["label"]] += 1
            yield row

    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(counted(), out, write_json_lines)
    if output:
        try:
            write(_answers(out), Path(output))
        except OSError as error:
            raise InputError(f"output: {output}: cannot be written: {error.strerror}") from None
    return labels


def _answers(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def check_output(output: str, files: str) -> None:
    """Refuse an output that cannot be written, or that the next run would take for input.

    Raises:
        InputError: unknown form, or it lies in the input.
    """
    if not output:
        return
    check_form(Path(output))
    if Path(files).resolve() in (Path(output).resolve(), Path(output).resolve().parent):
        raise InputError(f"output: {output} lies in the input {files}; name a file elsewhere")


@guarded()
def plan_step(model: str, files: str, column: str, shards: int, output: str, pair_column: str) -> list[Shard]:
    """The KFP component's work: a list of shards."""
    check_output(output, files)
    work = plan(model, files, named(column, pair_column), shards)
    say(f"[plan] {work[0]['model']}: {sum(shard['rows'] for shard in work)} texts in {len(work)} shards")
    return work


@guarded()
def predict_step(out: Artifact, shard: Shard, column: str, pair_column: str) -> None:
    """The KFP component's work: a shard in, its predictions out."""
    within_quota()
    predict_shard(shard, named(column, pair_column), Path(out.path))
    out.metadata |= {"model": shard["model"], "first": int(shard["first"]), "rows": int(shard["rows"])}


def shares(counts: Sequence[tuple[str, int]], rows: int) -> dict[str, float]:
    """Each label's share of the rows, as metrics: share.LABEL, with _ for what a metric's name may not have.

    Labels that then are called alike are told apart by a number.
    """
    found: dict[str, float] = {}
    for answer, count in counts:
        plain = "share." + re.sub(r"[^\w -]", "_", answer)[:200]
        name = next(name for number in itertools.count(1) if (name := _numbered(plain, number)) not in found)
        found[name] = count / rows
    return found


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} {number}"


def merge_step(parts: Sequence[Artifact], out: Artifact, work: list[Shard], **parameters: Any) -> None:
    """The KFP component's work: the shards' predictions in, one file out, and a run in MLflow that tells of it."""
    rows, model = sum(int(shard["rows"]) for shard in work), work[0]["model"]
    with step("batch-predict", {"model": model, **parameters}) as run:
        labels = merge([Path(part.path) for part in parts], rows, Path(out.path), parameters["output"])
        digest = sha256_file(Path(out.path))
        run.metrics({"rows": rows} | shares(labels.most_common(100), rows))
        run.tags({"tuneline.predictions_sha256": digest})
        out.metadata |= {"model": model, "rows": rows, "sha256": digest}
        say(f"[merge] {rows} texts labelled by {model}")
