"""prepare: raw labelled text -> PreparedData.

Reads the sources, makes the splits that were not given, looks for what would spoil a training or its measurement and
does about it what the policy says, and tokenizes once so that the training step starts at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline import checkpoint
from tuneline.artifacts import SPLITS, PreparedData, sha256_file, write_json
from tuneline.clean import fixes_of
from tuneline.config import DataConfig, ModelConfig
from tuneline.errors import InputError
from tuneline.prepare import audit, classes, corrections, imbalance, ingest, parts, report, sources, tokenize
from tuneline.prepare.identity import of_all
from tuneline.prepare.staging import staged
from tuneline.prepare.workers import Pool
from tuneline.progress import say
from tuneline.recipe import from_flat
from tuneline.step import Artifact, Metrics, step
from tuneline.tokenizer import copy_tokenizer

if TYPE_CHECKING:
    import numpy as np

Parts = dict[str, parts.Part]


def pin(data: DataConfig, model: ModelConfig) -> str:
    """A content hash of all that prepare reads, or "" where a source can change under its name.

    Raises:
        InputError: a source, the file of corrections or the checkpoint is missing.
    """
    prints = [sources.fingerprint(uri, f"data.{name}", data) for name, uri in _uris(data).items() if uri]
    folder = _checkpoint(model)
    if data.corrections:
        prints.append(corrections.fingerprint(data.corrections))
    if not all(prints):
        return ""
    prints.append(_tokenizer_sha256(folder))
    return hashlib.sha256("\n".join(prints).encode()).hexdigest()


def prepare(
    data: DataConfig, model: ModelConfig, out: Path, expected_pin: str = "", tokenized: int = 0
) -> PreparedData:
    """Write the prepared splits, the tokenizer, the audit and the manifest into `out`.

    Where the data is refused `out` holds the audit alone.

    Args:
        data: sources, columns, splits, samples, and what to do about what is found.
        model: whose tokenizer, the longest text, and what is kept of longer ones.
        out: folder to write; what it held before is replaced.
        expected_pin: what `pin` gave at submission; "" does not ask.
        tokenized: rows of a split to tokenize and write at most, for a look ahead: the manifest counts all of them, and
            its hashes are of those that are there; 0 writes all.

    Raises:
        InputError: the data cannot be learned from, or changed since submission.
        ServiceError: a worker process was killed.
    """
    if expected_pin and pin(data, model) != expected_pin:
        raise InputError("data: a source or the tokenizer changed since this run was submitted; submit it again")
    folder = _checkpoint(model)
    with staged(out) as stage, Pool(data.workers) as pool:
        found = _find(data, pool, stage.work, out)
        used = _use(found, data)
        some = used.some(tokenized)
        written = _write(some, folder, model, pool, stage.out)
        found.audit.findings.extend(_truncated(some, written, data, model))
        manifest = _manifest(found, used, written, folder, data, model)
        report.write(stage.out, manifest, found.audit, found.read, written, data)
        report.refuse(found.audit, stage.out, out)
        manifest.save(stage.out)
    for note in manifest.notes:
        say(f"[prepare] {note}")
    return manifest


def _checkpoint(model: ModelConfig) -> Path:
    folder = checkpoint.resolve(model.name, weights=False)
    checkpoint.check_max_length(model.name, checkpoint.read_config(folder), model.max_length)
    return folder


def _tokenizer_sha256(folder: Path) -> str:
    file = folder / "tokenizer.json"
    return sha256_file(file) if file.is_file() else ""


def _uris(data: DataConfig) -> dict[str, str]:
    return {name: getattr(data, name) for name in SPLITS}


@dataclass(frozen=True)
class Found:
    """The rows as they were read and split, and what the audit says of them.

    Attributes:
        parts: the splits, without the rows that the policy takes out.
        names: label names, as the parts number them.
        audit: findings.
        read: rows read per given split.
        versions: the version of each given source.
        notes: what was done, one sentence each.
    """

    parts: Parts
    names: list[str]
    audit: audit.Audit
    read: dict[str, int]
    versions: dict[str, str]
    notes: list[str]


def _find(data: DataConfig, pool: Pool, work: Path, out: Path) -> Found:
    """Read, split and audit.

    Raises:
        InputError: a source cannot be read, or the policy refuses what the audit found.
    """
    labels = ingest.Labels()
    fixed = corrections.load(data.corrections, data.label_map) if data.corrections else None
    tables = {
        name: ingest.read(uri, name, data, labels, pool, work, fixed if name == "train" else None)
        for name, uri in _uris(data).items()
        if uri
    }
    told = _corrected(fixed)
    division = parts.divide(tables, data, labels.names)
    checked = audit.check({name: part.audited() for name, part in division.parts.items()}, labels.names, data)
    checked.findings.extend(division.findings)
    kept = {name: part.take(~checked.drop[name]) for name, part in division.parts.items()}
    read = {name: len(table.labels) for name, table in tables.items()}
    found = Found(
        kept, labels.names, checked, read, {name: table.version for name, table in tables.items()},
        [*told, *division.notes, *checked.notes],
    )  # fmt: skip
    checked.findings[:0] = _unusable(found)
    try:
        audit.refuse(checked.findings, str(out / "audit.html"))
    except InputError:
        report.write_refused(out, found.audit, found.read)
        raise
    return found


def _corrected(fixed: corrections.Corrections | None) -> list[str]:
    if fixed is None:
        return []
    fixed.check_labels()
    return fixed.told()


def _unusable(found: Found) -> list[audit.Finding]:
    """Errors whatever the policy says: splits without rows, and training rows of fewer than two classes."""
    why = f" ({'; '.join(found.notes)})" if found.notes else ""
    errors = [
        _error("no_rows", name, f"no rows left in the {name} split; give more data or a larger share{why}")
        for name, part in found.parts.items()
        if not len(part.rows)
    ]
    train = found.parts["train"]
    known = _present(train.labels)
    if len(train.rows) and len(known) < 2:
        told = ", ".join(classes.shown(found.names[code]) for code in known) or "none"
        message = f"only one class ({told}) in the training rows; two are needed"
        errors.append(_error("too_few_classes", "train", message, len(known)))
    return errors


def _error(check: str, split: str, message: str, count: int = 0) -> audit.Finding:
    return audit.Finding(check, [split], count, "error", "stopped the run", message, refusal=f"data.{split}: {message}")


def _present(codes: np.ndarray) -> list[int]:
    import numpy as np

    return np.unique(codes[codes >= 0]).tolist()


@dataclass(frozen=True)
class Used:
    """The rows that will be written.

    Attributes:
        parts: the splits.
        labels: the model's labels.
        codes: index into them of each row, int32, per split.
    """

    parts: Parts
    labels: list[str]
    codes: dict[str, np.ndarray]

    def some(self, most: int) -> Used:
        """At most so many rows of each split, evenly over it; 0 keeps all."""
        import numpy as np

        if not most:
            return self
        counts = {name: len(part.rows) for name, part in self.parts.items()}
        at = {name: np.arange(min(most, count)) * count // min(most, count) for name, count in counts.items()}
        parts = {name: part.take(at[name]) for name, part in self.parts.items()}
        return Used(parts, self.labels, {name: codes[at[name]] for name, codes in self.codes.items()})


def _use(found: Found, data: DataConfig) -> Used:
    """Draw the samples and number the labels.

    Raises:
        InputError: a sample loses a class, or data.label_order names other labels.
    """
    import numpy as np

    keep = {"train": data.max_train, "validation": data.max_validation, "test": data.max_test}
    used = {name: part.sample(keep[name]) for name, part in found.parts.items()}
    known = _present(found.parts["train"].labels)
    if lost := set(known) - set(_present(used["train"].labels)):
        name = classes.shown(min(found.names[code] for code in lost))
        raise InputError(
            f"data.max_train: a sample of {data.max_train} keeps no training row of {len(lost)} of {len(known)} "
            f"classes, such as {name}; raise it"
        )
    present = _present(np.concatenate([part.labels for part in used.values()]))
    labels = classes.order([found.names[code] for code in present], data.label_order)
    index = {name: number for number, name in enumerate(labels)}
    number = np.array([index.get(name, -1) for name in found.names], np.int32)
    return Used(used, labels, {name: number[part.labels] for name, part in used.items()})


def _write(used: Used, folder: Path, model: ModelConfig, pool: Pool, out: Path) -> dict[str, tokenize.Written]:
    copy_tokenizer(folder, out / "tokenizer")
    return {
        name: tokenize.write(out, name, part, used.codes[name], used.labels, folder, model, pool)
        for name, part in used.parts.items()
    }


def _truncated(
    used: Used, written: dict[str, tokenize.Written], data: DataConfig, model: ModelConfig
) -> list[audit.Finding]:
    totals = {name: split.totals for name, split in written.items()}
    rows = {name: part.rows for name, part in used.parts.items()}
    return audit.truncated(totals, model.max_length, model.long_texts, data, rows)


def _manifest(
    found: Found, used: Used, written: dict[str, tokenize.Written], folder: Path, data: DataConfig, model: ModelConfig
) -> PreparedData:
    import numpy as np

    counts = {name: np.bincount(codes, minlength=len(used.labels)).tolist() for name, codes in used.codes.items()}
    plan = imbalance.plan(counts["train"])
    return PreparedData(
        labels=used.labels,
        rows={name: len(part.rows) for name, part in used.parts.items()},
        sha256=of_all({name: split.identity.ordered() for name, split in written.items()}),
        unordered_sha256=of_all({name: split.identity.unordered() for name, split in written.items()}),
        max_length=model.max_length,
        long_texts=model.long_texts,
        truncated={name: int((split.totals > model.max_length).sum()) for name, split in written.items()},
        model=model.name,
        sources=_uris(data),
        versions={name: found.versions.get(name, "") for name in SPLITS},
        tokenizer_sha256=_tokenizer_sha256(folder),
        seed=data.seed,
        notes=found.notes,
        class_counts=counts,
        class_weights=plan.class_weights,
        sampling=asdict(plan.sampling),
        pairs=bool(data.pair_column),
        clean=fixes_of(data.policy),
    )


def prepare_step(out: Artifact, page: Artifact, shown: Metrics, expected_pin: str, **parameters: Any) -> None:
    """The KFP component's work: flat `data_*` and `model_*` parameters in; data, the audit's page and numbers out."""
    folder = Path(out.path)
    with step("prepare", parameters) as run:
        data, model = from_flat(DataConfig, parameters), from_flat(ModelConfig, parameters)
        try:
            manifest = prepare(data, model, folder, expected_pin)
        except InputError:
            report.publish(folder, page, run)
            raise
        report.publish(folder, page, run)
        out.metadata |= {"labels": len(manifest.labels), "sha256": manifest.sha256["all"], **manifest.rows}
        run.dataset(manifest)
        numbers = report.metrics(folder, manifest)
        run.metrics(numbers)
        for name, value in numbers.items():
            shown.log_metric(name, value)
        write_json(Path(shown.path), numbers)  # KFP's local cache gives up an output whose file is not there
        run.artifact(folder / "manifest.json")
