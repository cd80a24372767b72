"""The audit as two files beside the data: audit.json for programs, audit.html for people, with the same numbers.

The page stands alone: no script, no font, no picture from elsewhere, bars and histograms as inline SVG. Texts occur in
one place only, the list of label-error candidates, and there only on the page, which is as private as the data.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import SPLITS, write_json
from tuneline.prepare.findings import counted

if TYPE_CHECKING:
    import numpy as np

    from tuneline.prepare.audit import Audit

MANY_CLASSES = 30
"""Above this many, classes are drawn as one skyline, and their table is folded away."""
BINS = 36
SHOWN_TEXT = 280
"""Characters of a text that the page shows."""
SHOWN_ERRORS = 50


def report(
    audit: Audit, *, labels: list[str], counts: dict[str, list[int]], rows_read: dict[str, int],
    token_totals: dict[str, np.ndarray] | None = None, max_length: int = 0, long_texts: str = "",
    class_weights: dict[str, float] | None = None, sampling: dict[str, float] | None = None,
    label_errors: list[dict[str, Any]] | None = None, identity: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All that the page and audit.json tell.

    Args:
        audit: what audit.check found, with later findings appended.
        labels: label names in the model's order; none where it did not come to them.
        counts: for each split, rows in use of each label; none takes those that were read.
        rows_read: rows of each split as read, before any left.
        token_totals: for each split, int32 tokens of each uncut text in use; None where it came to no tokens.
        max_length: model.max_length.
        long_texts: model.long_texts.
        class_weights: the weight of each label in the loss.
        sampling: the share of each label in what training draws.
        label_errors: candidates, the most suspicious first: row (from 1), label, suggested, score, text.
        identity: hashes, versions and seeds, a name each; values are texts, numbers or one more level of them.
    """
    findings = [found.told() for found in audit.findings]
    severities = [found["severity"] for found in findings]
    status = "refused" if "error" in severities else "warnings" if "warning" in severities else "clean"
    if not counts:
        labels, counts = audit.facts["labels"], audit.facts["classes"]
    errors = label_errors or []
    return {
        "status": status,
        "verdict": _verdict(status, severities, sum(audit.facts["removed"].values())),
        "findings": findings,
        "rows": {name: sum(of_split) for name, of_split in counts.items()},
        "rows_read": rows_read,
        "removed": audit.facts["removed"],
        "labels": labels,
        "class_counts": counts,
        "class_weights": class_weights,
        "sampling": sampling,
        "chars": audit.facts["chars"],
        "tokens": _tokens(token_totals, max_length, long_texts) if token_totals else None,
        "duplicates": audit.facts["duplicates"],
        "scripts": audit.facts["scripts"],
        "label_errors": errors,
        "identity": identity or {},
    }


def _verdict(status: str, severities: list[str], removed: int) -> str:
    gone = f" {counted(removed, 'row')} {'was' if removed == 1 else 'were'} removed." if removed else ""
    if status == "refused":
        return f"This data is refused: {counted(severities.count('error'), 'finding')} must be settled first.{gone}"
    if status == "warnings":
        warnings = severities.count("warning")
        deserve = "deserves" if warnings == 1 else "deserve"
        return f"This data can be trained on; {counted(warnings, 'warning')} {deserve} a look.{gone}"
    return f"This data can be trained on; nothing was found that needs a look.{gone}"


def _tokens(totals: dict[str, np.ndarray], max_length: int, long_texts: str) -> dict[str, Any]:
    """Histograms with common edges: up to what 99.5% of the texts reach and, unless that is far, beyond the cut.

    The last bin is open.
    """
    import numpy as np

    totals = {name: lengths for name, lengths in totals.items() if len(lengths)}
    if not totals:
        return {}
    reach = max(float(np.percentile(lengths, 99.5)) for lengths in totals.values())
    end = max(reach, 1.1 * max_length if max_length < 4 * reach else 0.0, 8.0)
    width = max(1, int(np.ceil(end / BINS)))
    edges = [at * width for at in range(int(np.ceil(end / width)) + 1)]
    splits = {}
    for name, lengths in totals.items():
        bins = np.bincount(np.minimum(lengths // width, len(edges) - 2), minlength=len(edges) - 1)
        over = int((lengths > max_length).sum())
        splits[name] = {"counts": bins.tolist(), "median": int(np.median(lengths)), "max": int(lengths.max()),
                        "p99": int(np.percentile(lengths, 99)), "over": over, "share": over / len(lengths)}  # fmt: skip
    return {"max_length": max_length, "long_texts": long_texts, "edges": edges, "splits": splits}


def write(out: Path, report: dict[str, Any]) -> None:
    """Write audit.json and audit.html into a folder; audit.json has no text of the data.

    Args:
        out: the folder, which is made if it is not there.
        report: what `report` gave.
    """
    out.mkdir(parents=True, exist_ok=True)
    plain = [{key: value for key, value in row.items() if key != "text"} for row in report["label_errors"]]
    write_json(out / "audit.json", report | {"label_errors": plain})
    (out / "audit.html").write_text(render(report), encoding="utf-8")


def render(report: dict[str, Any]) -> str:
    """The page; every value is escaped."""
    from jinja2 import Environment

    source = Path(__file__).with_name("audit.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    suspects = [found["count"] for found in report["findings"] if found["check"] == "label_errors"]
    drawn = {
        "suspects": max([*suspects, len(report["label_errors"])]),
        "splits": [name for name in SPLITS if name in report["rows"]],
        "classes": _classes(report),
        "skyline": _skyline(report) if len(report["labels"]) > MANY_CLASSES else None,
        "histograms": _histograms(report["tokens"]) if report["tokens"] else [],
        "script_names": sorted({name for found in report["scripts"].values() for name in found}),
        "errors": [row | {"text": _short(row.get("text", ""))} for row in report["label_errors"][:SHOWN_ERRORS]],
        "identity": _flat(report["identity"]),
    }
    return template.render(report | drawn)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}…"


def _classes(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a class: its label, its count and bar in each split (percent of the largest), weight and share."""
    counts = report["class_counts"]
    most = {name: max(of_split, default=0) or 1 for name, of_split in counts.items()}
    found = []
    for at, label in enumerate(report["labels"]):
        bars = {name: {"count": of_split[at], "percent": round(100 * of_split[at] / most[name], 1)}
                for name, of_split in counts.items()}  # fmt: skip
        weights = {key: (report[key] or {}).get(label) for key in ("class_weights", "sampling")}
        found.append({"label": label, "bars": bars, **weights})
    return sorted(found, key=lambda row: -row["bars"].get("train", {"count": 0})["count"])


def _skyline(report: dict[str, Any]) -> dict[str, Any]:
    """Training rows of every class, the largest first, as columns of a drawing 1000 wide and 160 high."""
    ordered = sorted(zip(report["class_counts"].get("train", []), report["labels"], strict=False), reverse=True)
    most, wide = max((count for count, _ in ordered), default=0) or 1, 1000 / max(len(ordered), 1)
    columns = [
        {"x": round(at * wide, 2), "y": round(160 - 160 * count / most, 2), "high": round(160 * count / most, 2),
         "label": label, "count": count}
        for at, (count, label) in enumerate(ordered)
    ]  # fmt: skip
    return {"columns": columns, "wide": round(max(wide - 1, 0.5), 2), "most": most, "least": ordered[-1][0]}


def _histograms(tokens: dict[str, Any]) -> list[dict[str, Any]]:
    """A drawing of 320 by 120 for each split: columns, those beyond the cut told apart, the cut's place, the marks."""
    edges, cut = tokens["edges"], tokens["max_length"]
    end, drawings = edges[-1], []
    for name, split in tokens["splits"].items():
        most, wide = max(split["counts"]) or 1, 320 / (len(edges) - 1)
        columns = [  # a bin that the cut parts is drawn as within
            {"x": round(at * wide, 2), "wide": round(wide - 1, 2), "y": round(120 - 120 * count / most, 2),
             "high": round(120 * count / most, 2), "over": edges[at] >= cut, "count": count, "low": edges[at],
             "top": edges[at + 1] - 1 if at + 2 < len(edges) else None}
            for at, count in enumerate(split["counts"])
        ]  # fmt: skip
        marks = [{"x": round(320 * at / end, 1), "at": at} for at in range(0, end + 1, _step(end))]
        line = round(320 * cut / end, 1) if cut <= end else None
        drawings.append({"name": name, "columns": columns, "cut": line, "marks": marks, **split})
    return drawings


def _step(end: int) -> int:
    """A round distance of some four marks on an axis that ends here."""
    rough = max(end / 4, 1)
    power = 10 ** (len(str(int(rough))) - 1)
    return power * next(step for step in (1, 2, 5, 10) if step * power >= rough * 0.8)


def _flat(identity: dict[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in identity.items():
        named = name.replace("_", " ")
        if isinstance(value, dict):
            found += [(f"{named}, {key}", inner) for key, inner in value.items() if inner not in ("", None)]
        elif value not in ("", None, []):
            found.append((named, ", ".join(map(str, value)) if isinstance(value, list) else value))
    return found
