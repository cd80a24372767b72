"""The evaluation as a picture and as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneline.artifacts import PreparedData

# Above this many classes, cells are too small for numbers and names.
READABLE_CLASSES = 24

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .8rem; border-bottom: 1px solid #ddd }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% } .verdict { font-size: 1.3rem }
</style></head><body>
<h1>Evaluation on {{ rows }} test texts</h1>
<p class="verdict">{{ verdict }}</p>
<table><tr><th></th><th class="n">model</th><th class="n">linear baseline</th></tr>
{% for name, model, baseline in scores %}
<tr><td>{{ name }}</td><td class="n">{{ "%.4f"|format(model) }}</td>
<td class="n">{{ "%.4f"|format(baseline) }}</td></tr>
{% endfor %}</table>
<h2>Confusion matrix</h2><img alt="confusion matrix" src="data:image/png;base64,{{ picture }}">
<h2>Per class</h2>
<table><tr><th>label</th><th class="n">texts</th><th class="n">precision</th><th class="n">recall</th>
<th class="n">F1</th></tr>
{% for row in classes %}<tr><td>{{ row.label }}</td><td class="n">{{ row.n }}</td>
<td class="n">{{ "%.3f"|format(row.precision) }}</td><td class="n">{{ "%.3f"|format(row.recall) }}</td>
<td class="n">{{ "%.3f"|format(row.f1) }}</td></tr>{% endfor %}</table>
<h2>Data</h2><ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
<p>Base model {{ base_model }}. {{ reading }} Data SHA-256 {{ sha256 }}.</p>
</body></html>
"""


_KEPT = {
    "head": "its first {} tokens",
    "tail": "its last {} tokens",
    "head_tail": "{} tokens, a quarter of them from its head and the rest from its tail",
    "windows": "all of it, in overlapping windows of {} tokens, whose probabilities are averaged",
}


def reading(manifest: PreparedData) -> str:
    """What the model reads of a text, in a sentence or two for people."""
    what = "pair of texts" if manifest.pairs else "text"
    kept = _KEPT[manifest.long_texts].format(manifest.max_length)
    cut, rows = manifest.truncated.get("test", 0), manifest.rows["test"]
    told = f"Of a long {what} it reads {kept}; {cut} of {rows} test texts are longer."
    return f"{told} Before reading, it cleans texts of: {', '.join(manifest.clean)}." if manifest.clean else told


def draw_confusion(matrix: list[list[int]], labels: list[str], path: Path) -> None:
    """A PNG of the confusion matrix, rows normalized; numbers and names where they can be read."""
    import matplotlib as mpl

    mpl.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = min(4 + 0.5 * len(labels), 14)
    figure, axes = plt.subplots(figsize=(size, size), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(labels) <= READABLE_CLASSES:
        names = [_plain(label) for label in labels]
        axes.set_xticks(range(len(labels)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), names)
        for row, column in np.ndindex(counts.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plain(label: str) -> str:
    """A label without mathtext, short enough for an axis."""
    return (label if len(label) <= 24 else label[:23] + "…").replace("$", r"\$")


def write_page(path: Path, picture: Path, facts: dict[str, Any]) -> None:
    """Render the page; every value is escaped."""
    import base64

    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(PAGE)
    encoded = base64.b64encode(picture.read_bytes()).decode()
    path.write_text(template.render(picture=encoded, **facts), encoding="utf-8")
