"""What the step tells of its data: the audit's page, the list of suspicious labels, numbers for MLflow and KFP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import SPLITS, PreparedData, read_json, read_split
from tuneline.config import DataConfig
from tuneline.prepare import label_errors, page
from tuneline.prepare.audit import Audit, Finding
from tuneline.prepare.audit import refuse as refuse_findings
from tuneline.prepare.findings import SEVERITIES
from tuneline.prepare.tokenize import Written
from tuneline.progress import say
from tuneline.step import Artifact
from tuneline.tracking import StepRun

if TYPE_CHECKING:
    import pyarrow as pa

FILES = ("audit.html", "audit.json", "label_errors.csv")
"""What a person reads of prepared data."""
MANY = 50_000
"""Training rows from which the search for label errors takes so long that it is said."""
LISTED = 50
"""Suspicious labels on the page; the file has all of them."""


def write(
    out: Path, manifest: PreparedData, checked: Audit, read: dict[str, int], written: dict[str, Written],
    data: DataConfig,
) -> None:  # fmt: skip
    """Write audit.html, audit.json and, unless data.label_errors is false, label_errors.csv.

    Args:
        out: folder that holds the splits.
        manifest: of these splits.
        checked: the audit.
        read: rows read per given split.
        written: what is known of the splits.
        data: whether label errors are looked for, and the seed.
    """
    suspects = _suspects(out, manifest.labels, checked, data.seed) if data.label_errors else None
    checked.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    told = page.report(
        checked,
        labels=manifest.labels,
        counts=manifest.class_counts,
        rows_read=read,
        token_totals={name: split.totals for name, split in written.items()},
        max_length=manifest.max_length,
        long_texts=manifest.long_texts,
        class_weights=dict(zip(manifest.labels, manifest.class_weights, strict=True)),
        sampling=_shares(manifest),
        label_errors=suspects,
        identity={
            "sources": manifest.sources, "versions": manifest.versions, "sha256": manifest.sha256,
            "unordered_sha256": manifest.unordered_sha256, "tokenizer_sha256": manifest.tokenizer_sha256,
            "seed": manifest.seed,
        },
    )  # fmt: skip
    page.write(out, told)


def write_refused(out: Path, checked: Audit, read: dict[str, int]) -> None:
    """Write what is known of data that is refused, in place of what `out` held."""
    _empty(out)
    page.write(out, page.report(checked, labels=[], counts={}, rows_read=read))


def refuse(checked: Audit, stage: Path, out: Path) -> None:
    """Refuse data whose finished audit holds an error; the page is kept in `out`.

    Raises:
        InputError: there is one.
    """
    if any(finding.severity == "error" for finding in checked.findings):
        _empty(out)
        for name in FILES:
            if (stage / name).is_file():
                shutil.copyfile(stage / name, out / name)
        refuse_findings(checked.findings, str(out / "audit.html"))


def _empty(out: Path) -> None:
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)


def _shares(manifest: PreparedData) -> dict[str, float]:
    """The share of each label in what the sampling plan draws."""
    draws = manifest.sampling["draws"]
    return {label: count / sum(draws) for label, count in zip(manifest.labels, draws, strict=True)}


class Texts(Sequence[str]):
    """The texts of a written split, read from the mapped file as they are asked for.

    Args:
        table: as read_split gives it.
        names: the columns, parted by a line break; none takes the text and, where there is one, the pair.
    """

    def __init__(self, table: pa.Table, *names: str) -> None:
        self.columns = [table.column(name) for name in names or ("text", "pair") if name in table.schema.names]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: Any) -> Any:
        return "\n".join(column[int(index)].as_py() for column in self.columns)

    def __iter__(self) -> Iterator[str]:
        for parts in zip(*(column.chunks for column in self.columns), strict=True):
            for row in zip(*(part.to_pylist() for part in parts), strict=True):
                yield "\n".join(row)


def _suspects(out: Path, labels: list[str], checked: Audit, seed: int) -> list[dict[str, Any]]:
    """Write label_errors.csv and a finding about it; the head of it."""
    import numpy as np

    table = read_split(out, "train")
    if len(table) > MANY:
        say("[prepare] looking for label errors in the training rows")
    texts, given, rows = Texts(table), np.asarray(table.column("label")), np.asarray(table.column("row"))
    ranked = label_errors.find(texts, given, labels, seed)
    label_errors.write(
        out / "label_errors.csv", ranked, Texts(table, "text"), given, labels, rows.tolist(),
        Texts(table, "pair") if "pair" in table.schema.names else None,
    )  # fmt: skip
    examples = {"train": (rows[ranked.rows[: min(ranked.count, 10)]] + 1).tolist()}
    checked.findings.append(
        Finding(
            "label_errors", ["train"], ranked.count, "info", "listed them in label_errors.csv", ranked.told(), examples
        )
    )
    return [
        {
            "row": int(rows[at]) + 1, "label": labels[given[at]], "suggested": labels[ranked.suggested[place]],
            "score": float(ranked.scores[place]), "text": texts[at],
        }
        for place, at in enumerate(ranked.rows[: min(ranked.count, LISTED)].tolist())
    ]  # fmt: skip


def publish(folder: Path, shown: Artifact, run: StepRun) -> None:
    """Hand the page to KFP, and it and its files to MLflow; nothing where the step did not get that far."""
    if not (folder / "audit.html").is_file():
        return
    shutil.copyfile(folder / "audit.html", shown.path)
    for name in FILES:
        if (folder / name).is_file():
            run.artifact(folder / name)


def metrics(folder: Path, manifest: PreparedData) -> dict[str, float]:
    """Numbers of the prepared data: rows and share of truncated texts per split, and findings by severity."""
    told = read_json(folder / "audit.json")
    found = {f"{name}_rows": float(manifest.rows[name]) for name in SPLITS}
    found |= {f"{name}_truncated": manifest.truncated[name] / manifest.rows[name] for name in SPLITS}
    for finding in told["findings"]:
        if finding["check"] == "label_errors":
            found["label_errors"] = float(finding["count"])
    found["warnings"] = float(sum(finding["severity"] == "warning" for finding in told["findings"]))
    found["removed_rows"] = float(sum(told["removed"].values()))
    return found
