"""prepare: raw labelled text -> PreparedData.

Reads the sources, refuses what cannot be learned from, makes the splits that were not given, keeps test rows out of
training, and tokenizes once so that the training step starts at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from tuneline import checkpoint
from tuneline.artifacts import SPLITS, PreparedData, write_split
from tuneline.config import DataConfig, ModelConfig, from_flat
from tuneline.errors import InputError
from tuneline.prepare import sources, split, tokenize
from tuneline.progress import Progress, say
from tuneline.step import Artifact, step

Rows = dict[str, tuple[list[int], list[str], list[str]]]
"""Per split: row numbers in the source (from 0), texts, labels."""


def pin(data: DataConfig, model: ModelConfig) -> str:
    """A content hash of all that prepare reads, or "" where a source can change under its name.

    Raises:
        InputError: a source or the checkpoint is missing.
    """
    prints = [sources.fingerprint(uri, f"data.{name}", data) for name, uri in _uris(data).items() if uri]
    folder = checkpoint.resolve(model.name, weights=False)
    checkpoint.check_max_length(model.name, checkpoint.read_config(folder), model.max_length)
    if not all(prints):
        return ""
    tokenizer = folder / "tokenizer.json"
    prints.append(hashlib.sha256(tokenizer.read_bytes()).hexdigest() if tokenizer.is_file() else "")
    return hashlib.sha256("\n".join(prints).encode()).hexdigest()


def prepare(data: DataConfig, model: ModelConfig, out: Path, expected_pin: str = "") -> PreparedData:
    """Write the prepared splits, the tokenizer and the manifest into `out`.

    Args:
        data: sources, columns, splits, samples.
        model: whose tokenizer, and the longest text.
        out: folder to write.
        expected_pin: what `pin` gave at submission; "" does not ask.

    Raises:
        InputError: the data cannot be learned from, or changed since submission.
    """
    if expected_pin and pin(data, model) != expected_pin:
        raise InputError("data: a source or the tokenizer changed since this run was submitted; submit it again")
    folder = checkpoint.resolve(model.name, weights=False)
    checkpoint.check_max_length(model.name, checkpoint.read_config(folder), model.max_length)
    rows, notes = _splits(data)
    labels = _labels(rows)
    out.mkdir(parents=True, exist_ok=True)
    tokenize.copy_tokenizer(folder, out / "tokenizer")
    truncated = {name: _write(out, folder, name, rows, labels, model) for name in SPLITS}
    hashes = {name: _sha256(*rows[name][1:]) for name in SPLITS}
    hashes["all"] = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()
    manifest = PreparedData(
        labels=labels, rows={name: len(rows[name][0]) for name in SPLITS}, sha256=hashes, max_length=model.max_length,
        long_texts=model.long_texts, truncated=truncated, model=model.name, sources=_uris(data),
        seed=data.seed, notes=notes,
    )  # fmt: skip
    manifest.save(out)
    for note in notes:
        say(f"[prepare] {note}")
    return manifest


def _uris(data: DataConfig) -> dict[str, str]:
    return {"train": data.train, "validation": data.validation, "test": data.test}


def _splits(data: DataConfig) -> tuple[Rows, list[str]]:
    notes: list[str] = []
    rows: Rows = {}
    for name, uri in _uris(data).items():
        if uri:
            rows[name] = _read(uri, name, data)
    _make_missing(data, rows, notes)
    _drop_leaks(rows, notes)
    classes = set(rows["train"][2])
    for name, keep in (("train", data.max_train), ("validation", data.max_validation), ("test", data.max_test)):
        rows[name] = _take(rows[name], split.sample(rows[name][1], keep, data.seed))
    for name in SPLITS:
        if not rows[name][0]:
            why = f" ({'; '.join(notes)})" if notes else ""
            raise InputError(f"data.{name}: no rows left in the {name} split; give more data or a larger share{why}")
    if lost := classes - set(rows["train"][2]):
        raise InputError(
            f"data.max_train: a sample of {data.max_train} keeps no training row of {len(lost)} of {len(classes)} "
            f"classes, such as {_shown(min(lost))}; raise it"
        )
    return rows, notes


def _read(uri: str, name: str, data: DataConfig) -> tuple[list[int], list[str], list[str]]:
    texts: list[str] = []
    labels: list[str] = []
    for batch in sources.open_source(uri, name, data).batches:
        texts += batch["text"].to_pylist()
        labels += batch["label"].to_pylist()
    for number, (text, label) in enumerate(zip(texts, labels, strict=True), start=1):
        if not text.strip() or label is None:
            what = "no label" if label is None else "empty text"
            raise InputError(f"{uri}: row {number}: {what}; remove the row or fill it in")
    return list(range(len(texts))), texts, labels


def _make_missing(data: DataConfig, rows: Rows, notes: list[str]) -> None:
    shares = {name: 0.0 if name in rows else getattr(data, f"{name}_share") for name in ("validation", "test")}
    whole = rows["train"]
    names = split.assign(whole[1], data.seed, shares["validation"], shares["test"])
    if kept := split.keep_classes(names, whole[1], whole[2]):
        notes.append(f"train: {kept} rows kept from the held-out splits, because train had none of their classes")
    for name in SPLITS:
        if name not in rows or name == "train":
            rows[name] = _take(whole, [index for index, at in enumerate(names) if at == name])
        if name != "train" and shares[name]:
            notes.append(f"{name}: {len(rows[name][0])} of {len(names)} training rows, by content hash")


def _drop_leaks(rows: Rows, notes: list[str]) -> None:
    """A held-out text that also stands in train would be graded by memory: train gives it up."""
    held_out: set[str] = set()
    for name in ("test", "validation"):
        texts = rows[name][1]
        kept = [index for index, text in enumerate(texts) if text not in held_out]
        _note_drop(notes, name, len(texts) - len(kept), "the test split")
        rows[name] = _take(rows[name], kept)
        held_out.update(texts)
    kept = [index for index, text in enumerate(rows["train"][1]) if text not in held_out]
    _note_drop(notes, "train", len(rows["train"][0]) - len(kept), "a held-out split")
    rows["train"] = _take(rows["train"], kept)


def _note_drop(notes: list[str], name: str, count: int, where: str) -> None:
    if count:
        notes.append(f"{name}: {count} rows removed, because their texts also stand in {where}")


def _take(part: tuple[list[int], list[str], list[str]], indices: list[int]) -> tuple[list[int], list[str], list[str]]:
    numbers, texts, labels = part
    return [numbers[i] for i in indices], [texts[i] for i in indices], [labels[i] for i in indices]


def _labels(rows: Rows) -> list[str]:
    counts = Counter(rows["train"][2])
    if len(counts) < 2:
        raise InputError(f"data.train: only one class ({_shown(*counts)}) in the training rows; two are needed")
    for name in ("validation", "test"):
        for number, label in zip(rows[name][0], rows[name][2], strict=True):
            if label not in counts:
                raise InputError(
                    f"data.{name}: row {number + 1}: label {_shown(label)} does not occur in the training rows; "
                    f"add examples to train or remove the row"
                )
    numeric = all(label.isascii() and label.isdigit() for label in counts)
    return sorted(counts, key=(lambda label: (int(label), label)) if numeric else None)


def _shown(label: str) -> str:
    """A label for a message; short, because a column of texts may have been taken for labels."""
    return repr(label if len(label) <= 40 else f"{label[:40]}…")


def _write(out: Path, checkpoint_folder: Path, name: str, rows: Rows, labels: list[str], model: ModelConfig) -> int:
    import pyarrow as pa

    numbers, texts, names = rows[name]
    progress = Progress("prepare", len(texts), f"{name} texts")
    ids, cut = tokenize.encode(checkpoint_folder, texts, model, progress)
    index = {label: number for number, label in enumerate(labels)}
    columns = {
        "row": pa.array(numbers, pa.int64()),
        "text": pa.array(texts, pa.large_string()),
        "label": pa.array([index[label] for label in names], pa.int32()),
        "input_ids": pa.array(ids, pa.large_list(pa.int32())),
    }
    write_split(out, name, pa.table(columns))
    return cut


def _sha256(texts: list[str], labels: list[str]) -> str:
    """SHA-256 over every text and label in order, each preceded by its length so that no two data sets collide."""
    digest = hashlib.sha256()
    for text, label in zip(texts, labels, strict=True):
        for value in (text.encode("utf-8", "surrogatepass"), label.encode("utf-8", "surrogatepass")):
            digest.update(len(value).to_bytes(8, "big"))
            digest.update(value)
    return digest.hexdigest()


def prepare_step(out: Artifact, expected_pin: str, **parameters: Any) -> None:
    """The KFP component's work: flat `data_*` and `model_*` parameters in, an artifact out."""
    with step("prepare", parameters) as run:
        data, model = from_flat(DataConfig, parameters), from_flat(ModelConfig, parameters)
        manifest = prepare(data, model, Path(out.path), expected_pin)
        out.metadata |= {"labels": len(manifest.labels), "sha256": manifest.sha256["all"], **manifest.rows}
        run.dataset(manifest)
        run.metrics({f"{name}_rows": float(rows) for name, rows in manifest.rows.items()})
        run.artifact(Path(out.path) / "manifest.json")
