"""Small drawings of the page, as SVG in its own source: no script, no network."""

from __future__ import annotations

from collections.abc import Sequence

SIDE, EDGE, LENGTH = 320, 44, 280
MODEL, BASELINE, CHAMPION = "#1f5fa8", "#8a8a8a", "#2f7d4f"


def interval(value: float, low: float, high: float, worse: bool = False) -> str:
    """A share between 0 and 1 as a dot on a line from 0 to 1, its interval as a bar."""
    colour = "#b3261e" if worse else "#1f5fa8"
    low, high, value = (round(4 + 112 * min(max(number, 0), 1), 1) for number in (low, high, value))
    return (
        f'<svg viewBox="0 0 120 12" width="120" height="12" aria-hidden="true">'
        f'<line x1="4" x2="116" y1="6" y2="6" stroke="#ddd"/>'
        f'<rect x="{low}" y="4" width="{max(high - low, 1):.1f}" height="4" rx="2" fill="{colour}" opacity=".35"/>'
        f'<circle cx="{value}" cy="6" r="3" fill="{colour}"/></svg>'
    )


def strip(estimates: Sequence[tuple[Sequence[float], str]]) -> str:
    """Several shares between 0 and 1 below each other, each a dot with its interval as a bar, in its colour."""
    parts = [f'<line x1="4" x2="{LENGTH + 4}" y1="1" y2="1" stroke="#ddd"/>']
    for place, (of, colour) in enumerate(estimates):
        value, low, high = (round(4 + LENGTH * min(max(number, 0), 1), 1) for number in (of[0], of[-2], of[-1]))
        y = 10 + 10 * place
        parts.append(
            f'<rect x="{low}" y="{y - 2}" width="{max(high - low, 1):.1f}" height="4" rx="2" fill="{colour}" '
            f'opacity=".35"/><circle cx="{value}" cy="{y}" r="3.5" fill="{colour}"/>'
        )
    height = 8 + 10 * len(estimates)
    size = f'viewBox="0 0 {LENGTH + 8} {height}" width="{LENGTH + 8}" height="{height}"'  # a narrow column shrinks it
    return f'<svg {size} aria-hidden="true">{"".join(parts)}</svg>'


def _axes(across: str, up: str) -> list[str]:
    parts = [f'<rect x="{EDGE}" y="8" width="{SIDE}" height="{SIDE}" fill="none" stroke="#bbb"/>']
    for step in range(6):
        at = step / 5
        x, y = EDGE + SIDE * at, 8 + SIDE * (1 - at)
        parts.append(f'<text x="{x:.0f}" y="{SIDE + 24}" text-anchor="middle">{at:.1f}</text>')
        parts.append(f'<text x="{EDGE - 6}" y="{y + 4:.0f}" text-anchor="end">{at:.1f}</text>')
    middle = 8 + SIDE / 2
    parts.append(f'<text x="{EDGE + SIDE / 2}" y="{SIDE + 42}" text-anchor="middle">{across}</text>')
    parts.append(f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{up}</text>')
    return parts


def _figure(parts: Sequence[str], label: str) -> str:
    width, height = SIDE + EDGE + 16, SIDE + 52
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _at(across: float, up: float) -> tuple[float, float]:
    return round(EDGE + SIDE * across, 1), round(8 + SIDE * (1 - up), 1)


def reliability(bins: Sequence[dict[str, float]], abstain_below: float = 0.0) -> str:
    """Accuracy over confidence with intervals; a calibrated model lies on the diagonal.

    Args:
        bins: of metrics.reliability.
        abstain_below: the confidence below which there is no answer, shaded; 0 for none.
    """
    parts = _axes("confidence", "accuracy")
    if abstain_below:
        parts.append(f'<rect x="{EDGE}" y="8" width="{SIDE * abstain_below:.1f}" height="{SIDE}" fill="#eee"/>')
        parts.append(f'<text x="{EDGE + 6}" y="22" class="axis">abstains</text>')
    (x1, y1), (x2, y2) = _at(0, 0), _at(1, 1)
    parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#999" stroke-dasharray="4 4"/>')
    for row in bins:
        x, y = _at(row["confidence"], row["accuracy"])
        (_, low), (_, high) = _at(0, row["low"]), _at(0, row["high"])
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{low}" y2="{high}" stroke="#1f5fa8" opacity=".45" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="#1f5fa8"/>')
    return _figure(parts, "reliability diagram")


def precision_recall(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> str:
    """Precision over recall, a line a class, in the colours of COLOURS."""
    parts = _axes("recall", "precision")
    for (recall, precision), colour in zip(curves, COLOURS, strict=False):
        points = " ".join(f"{x},{y}" for x, y in map(_at, recall, precision))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return _figure(parts, "precision-recall curves")


COLOURS = ("#1f5fa8", "#c2571a", "#2f7d4f", "#8a3fa0", "#6b6b6b")
