"""The confusion matrix: as a drawing with names and counts, and as a picture of all classes however many there are."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

READABLE = 24
"""Classes whose counts and names can be read side by side."""
NAMED = 200
"""Classes whose names a picture can hold."""
LONGEST = 26
"""Characters of a name that an axis shows."""
COLOURS = {True: (31, 95, 168), False: (179, 38, 30), None: (120, 120, 120)}
"""Of right answers, wrong ones and none."""
NO_ANSWER = "(no answer)"


def shown(matrix: list[list[int]]) -> list[int]:
    """The classes to draw, in the order to draw them: all in their own order, or, of many, the most confused ones.

    Of many, those of the most frequent confusions are taken, and each stands beside the one that it is confused with
    most, so that what belongs together forms blocks.
    """
    import numpy as np

    counts = np.array(matrix)
    if len(counts) <= READABLE:
        return list(range(len(counts)))
    both = counts + counts.T
    np.fill_diagonal(both, 0)
    order = np.argsort(-np.triu(both), axis=None, kind="stable")
    chosen: list[int] = []
    for place in order.tolist():
        pair = divmod(place, len(counts))
        if not both[pair] or len(set(chosen) | set(pair)) > READABLE:
            break
        chosen += [index for index in pair if index not in chosen]
    return _beside(both, chosen)


def _beside(both: np.ndarray, chosen: list[int]) -> list[int]:
    """Each class followed by the one that it is confused with most, of those that are left."""
    placed, left = chosen[:1], chosen[1:]
    while left:
        best = max(left, key=lambda index: (both[placed[-1], index], both[placed, index].sum()))
        placed.append(best)
        left.remove(best)
    return placed


def drawing(matrix: list[list[int]], labels: list[str], texts: list[int], classes: list[int]) -> str:
    """An SVG of these classes: rows are true, columns answered, red what is wrong; a cell tells itself when pointed at.

    Where texts got no answer, the last column has them.

    Args:
        matrix: counts [true][answered] of all classes.
        labels: their names.
        texts: rows of each class, also of those without an answer.
        classes: which to draw, in this order.
    """
    cell = 72 if len(classes) <= 4 else 42 if len(classes) <= 10 else 30
    unanswered = [texts[index] - sum(matrix[index]) for index in classes]
    names = [_short(labels[index]) for index in classes]
    heads = [*names, NO_ANSWER] if any(unanswered) else names
    longest = max(map(len, heads), default=0)
    left, top, side = 30 + 6 * longest, 14 + 5 * longest, cell * len(classes)
    parts = [_tilted(left + cell * (place + 0.5), top - 6, name) for place, name in enumerate(heads)]
    for row, true in enumerate(classes):
        at = top + cell * row
        parts.append(f'<text x="{left - 8}" y="{at + cell / 2 + 4:.0f}" text-anchor="end">{escape(names[row])}</text>')
        for column, told in enumerate(classes):
            place = left + cell * column, at
            parts.append(_cell(place, cell, matrix[true][told], texts[true], labels[true], labels[told], true == told))
        if len(heads) > len(names):
            parts.append(_cell((left + side, at), cell, unanswered[row], texts[true], labels[true], NO_ANSWER, None))
    middle = top + side / 2
    parts.append(f'<text x="10" y="{middle}" transform="rotate(-90 10 {middle})" class="axis">true</text>')
    width, height = left + cell * len(heads) + 5 * longest, top + side + 4
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="confusion matrix, rows true, columns answered">{"".join(parts)}</svg>'
    )


def _tilted(x: float, y: float, name: str) -> str:
    return f'<text x="{x:.0f}" y="{y}" transform="rotate(-45 {x:.0f} {y})">{escape(name)}</text>'


def _cell(at: tuple[int, int], side: int, count: int, of: int, true: str, told: str, right: bool | None) -> str:
    share = count / of if of else 0.0
    depth = min(1.0, 2.5 * share) if right is False else share  # a fifth of a class gone wrong has to be seen
    red, green, blue = (round(255 + (end - 255) * depth) for end in COLOURS[right])
    dark = "fill:#fff" if depth > 0.55 else "" if count else "fill:#bbb"
    x, y = at
    return (
        f'<g><title>{escape(true)} → {escape(told)}: {count} of {of} ({100 * share:.0f}%)</title>'
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="rgb({red},{green},{blue})" stroke="#e4e4e4"/>'
        f'<text x="{x + side / 2:.0f}" y="{y + side / 2 + 4:.0f}" text-anchor="middle" style="{dark}">'
        f"{count or '·'}</text></g>"
    )  # fmt: skip


def picture(matrix: list[list[int]], labels: list[str], path: Path) -> None:
    """A PNG of all classes, rows normalized; counts where they can be read, names up to 200 classes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    counts, many = np.asarray(matrix), len(labels) > READABLE
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = min(4 + 0.5 * len(labels), 14) if not many else 18
    figure, axes = plt.subplots(figsize=(size, size), layout="constrained")
    # Of many classes a confusion is a dot among thousands: the root makes the pale ones visible.
    axes.imshow(np.sqrt(shares) if many else shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="answered", ylabel="true")
    if len(labels) <= NAMED:
        names = [plain(_short(label)) for label in labels]
        axes.set_xticks(range(len(labels)), names, rotation=90 if many else 45, ha="center" if many else "right")
        axes.set_yticks(range(len(labels)), names)
        axes.tick_params(labelsize=5 if many else 10)
    if not many:
        for row, column in np.ndindex(counts.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _short(label: str) -> str:
    """A label short enough for an axis."""
    return label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"


def plain(name: str) -> str:
    """A name that Matplotlib takes for text, and not for a formula."""
    return name.replace("$", r"\$")
