"""What the step tells of its data: the audit's page, the list of suspicious labels, numbers for MLflow and KFP."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tuneline.artifacts import SPLITS, PreparedData, read_json, read_split
from tuneline.config import DataConfig
from tuneline.prepare import label_errors, page
from tuneline.prepare.audit import Audit, refuse as refuse_findings
from tuneline.prepare.tokenize import Written
from tuneline.progress import say
from tuneline.step import Artifact
from tuneline.tracking import StepRun

FILES = ("audit.html", "audit.json", "label_errors.csv")
"""What a person reads of prepared data."""
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
    told = page.report(
        checked,
        labels=manifest.labels,
        counts=manifest.class_counts,
        rows_read=read,
        token_totals={name: split.totals for name, split in written.items()},
        max_length=manifest.max_length,
        long_texts=manifest.long_texts,
        class_weights=dict(zip(manifest.labels, manifest.class_weights, strict=True)),
        sampling=dict(zip(manifest.labels, manifest.sampling["shares"], strict=True)),
        label_errors=_suspects(out, manifest.labels, data) if data.label_errors else None,
        identity={
            "sources": manifest.sources, "versions": manifest.versions, "sha256": manifest.sha256,
            "unordered_sha256": manifest.unordered_sha256, "tokenizer_sha256": manifest.tokenizer_sha256,
            "seed": manifest.seed,
        },
    )  # fmt: skip
    page.write(out, told)


def write_refused(out: Path, checked: Audit, read: dict[str, int]) -> None:
    """Write what is known of data that is refused, in place of what `out` held."""
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    page.write(out, page.report(checked, labels=[], counts={}, rows_read=read))


def refuse(checked: Audit, stage: Path, out: Path) -> None:
    """Refuse data whose finished audit holds an error; the page is kept in `out`.

    Raises:
        InputError: there is one.
    """
    if any(finding.severity == "error" for finding in checked.findings):
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        for name in FILES:
            if (stage / name).is_file():
                shutil.copyfile(stage / name, out / name)
        refuse_findings(checked.findings, str(out / "audit.html"))


def _suspects(out: Path, labels: list[str], data: DataConfig) -> list[dict[str, Any]]:
    """Write label_errors.csv; the head of it."""
    import numpy as np

    say("[prepare] looking for label errors in the training rows")
    table = read_split(out, "train")
    texts, given = table.column("text"), np.asarray(table.column("label"))
    rows = np.asarray(table.column("row"))
    pairs = table.column("pair") if data.pair_column else None
    ranked = label_errors.find(texts, given, labels, data.seed, pairs)
    label_errors.write(out / "label_errors.csv", ranked, texts, given, labels, rows, pairs)
    return [
        {
            "row": int(rows[at]) + 1, "label": labels[given[at]], "suggested": labels[suggested],
            "score": float(score), "text": texts[at].as_py(),
        }
        for at, suggested, score in zip(
            *(values[: min(ranked.count, LISTED)].tolist() for values in (ranked.rows, ranked.suggested, ranked.scores)),
            strict=True,
        )
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
    found["warnings"] = float(sum(finding["severity"] == "warning" for finding in told["findings"]))
    found["removed_rows"] = float(sum(told["removed"].values()))
    return found
