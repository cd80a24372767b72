"""tuneline init: three questions, and a recipe with comments that answers them; for a cluster a profile beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tuneline.config import EMBEDDED_MODEL
from tuneline.errors import InputError
from tuneline.prepare.sources import look
from tuneline.recipe import load_recipe
from tuneline.tables import File, Written, column_names, local_file, read
from tuneline.tables.files import shown_columns
from tuneline_pipelines.resources import load_profile

_TEXTS = ("text", "body", "content", "review", "sentence", "message", "utterance", "question", "tweet", "comment")
_LABELS = ("label", "class", "category", "sentiment", "intent", "topic", "target", "label_text")
_REMOTE = ("s3://", "hf://", "sample:")
_LOOK_AT = 10_000


class Where(StrEnum):
    """Where a recipe is going to run."""

    LAPTOP = "laptop"
    DOCKER = "docker"
    CLUSTER = "cluster"


@dataclass(frozen=True)
class Columns:
    """Which columns hold what, and what a look at the first rows says of them.

    Attributes:
        text: the column of texts.
        label: the column of labels.
        names: of all columns; empty where nothing was looked into.
        rows: that were looked at.
        labels: different ones in them.
        headed: whether the label's column has a name that none of its labels has.
    """

    text: str
    label: str
    names: tuple[str, ...] = ()
    rows: int = 0
    labels: int = 0
    headed: bool = True


def guess(data: str, text: str = "", label: str = "") -> Columns:
    """The columns of local data by their names or, where these say nothing, by their cells: texts are the longest.

    Args:
        data: as data.train; folders and what is not on this machine are not looked into.
        text: the column that a person named for texts; empty for none.
        label: likewise; with both there is nothing to guess, and `check` looks at their cells alone.

    Raises:
        InputError: a file that is not there or cannot be read, or with fewer than two columns.
    """
    if data.startswith(_REMOTE) or any(sign in data for sign in "*?[") or Path(data).expanduser().is_dir():
        return Columns(text or "text", label or "label")
    file = File(local_file(data, "data.train"), data)
    names = tuple(column_names(file, Written()))
    if len(names) < 2:
        raise InputError(f"{data}: has the columns {shown_columns(names)}; a text and a label are needed")
    if text and label:
        return Columns(text, label, names)
    cells = _first_cells(file, {f"--text/--label {name}": name for name in names})
    text = _named(names, _TEXTS) or max(names, key=lambda name: sum(map(len, cells[name])))
    others = [name for name in names if name != text]
    label = _named(others, _LABELS) or min(others, key=lambda name: (len(set(cells[name])) < 2, len(set(cells[name]))))
    return Columns(text, label, names, len(cells[label]), len(set(cells[label])))


def check(data: str, columns: Columns) -> Columns:
    """The columns that a person chose, looked at; of what `guess` did not look into, whether anything is there.

    Raises:
        InputError: local data have no such column, or there are none.
    """
    if not columns.names:
        look(data, "train")
        return columns
    file = File(local_file(data, "data.train"), data)
    cells = _first_cells(file, {"--text": columns.text, "--label": columns.label})[columns.label]
    if not cells:
        raise InputError(f"{data}: holds no rows below its header; labelled texts are needed")
    labels = set(cells)
    return Columns(columns.text, columns.label, columns.names, len(cells), len(labels), columns.label not in labels)


def write(name: str, data: str, columns: Columns, where: Where, force: bool = False) -> list[Path]:
    """Write NAME.yaml and, for a cluster, NAME.cluster.yaml, once they were read as every command will read them.

    Args:
        name: of the files, and of the registered model.
        data: as data.train.
        columns: of the data.
        where: it is going to run.
        force: write over what is there.

    Returns:
        The files.

    Raises:
        InputError: a file is there already, the name cannot be one, or no command would take what was answered.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"{name!r}: not a name; letters, digits, . _ and - are allowed, such as support-desk")
    if name.endswith((".yaml", ".yml")):
        raise InputError(f"{name!r}: a name is needed, to which .yaml is added; give {name.rpartition('.')[0]}")
    files = {Path(f"{name}.yaml"): _recipe(name, data, columns, where)}
    if where is Where.CLUSTER:
        files[Path(f"{name}.cluster.yaml")] = _PROFILE
    if not force and (there := [path for path in files if path.exists()]):
        raise InputError(f"{there[0]}: is there already; give another name, or --force to write over it")
    with TemporaryDirectory() as folder:  # what would be refused shall not stand in the way of the next attempt
        tried = [Path(folder) / path for path in files]
        for path, text in zip(tried, files.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        load_recipe(tried[0], [])
        for path in tried[1:]:
            load_profile(path)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def next_commands(name: str, where: Where, data: str = "") -> list[str]:
    """What to type next, in order; data that only this machine sees are to be brought to a cluster first."""
    recipe = f"{name}.yaml"
    first = [f"tuneline audit {recipe}", f"tuneline plan {recipe}"]
    last = {
        Where.LAPTOP: f"tuneline run {recipe}",
        Where.DOCKER: f"tuneline run {recipe} --docker",
        Where.CLUSTER: f"tuneline submit {recipe} --profile {name}.cluster.yaml --wait",
    }
    if where is Where.CLUSTER and data and not data.startswith((*_REMOTE, "/")):
        first += [
            f"# bring {data} where the cluster's pods see it (s3://, or a volume), and name that place in {recipe}"
        ]
    return [*first, last[where]]


def _named(names: Sequence[str], known: Sequence[str]) -> str:
    """The column whose name is best known, capitals or not."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), "")


def _first_cells(file: File, columns: dict[str, str]) -> dict[str, list[str]]:
    """Some thousand cells of each column, as text; by the option that names it."""
    cells: dict[str, list[str]] = {name: [] for name in columns.values()}
    for part in read(file, columns, Written()):
        for name, found in cells.items():
            found += [str(cell) for cell in _plain(part[name]) if cell is not None]
        if max(map(len, cells.values())) >= _LOOK_AT:
            break
    return cells


def _plain(cells: Any) -> list[Any]:
    return cells if isinstance(cells, list) else cells.to_pylist()


def _recipe(name: str, data: str, columns: Columns, where: Where) -> str:
    """A recipe's text: what was answered, and what is most often changed, with its default, behind a #."""
    found = f"  # {columns.rows:,} rows looked at, {columns.labels:,} labels" if columns.labels else ""
    place = f"  # as the {where} sees it" if where is Where.CLUSTER else ""
    lines = [
        f"# {name}: written by tuneline init. Every key and its default: tuneline's config.py.",
        "data:",
        f"  train: {_value(data)}{place}",
        "  # test: TEST_FILE              # left out, a fifth of the texts, drawn by content, never trained on",
        "  # validation: VALIDATION_FILE  # left out, a tenth",
        f"  text_column: {_value(columns.text)}",
        f"  label_column: {_value(columns.label)}{found}",
        "  # max_train: 2000              # a first try on a sample",
        "  # near_duplicates: 0.8         # also find texts that are nearly the same",
        "model:",
        f"  name: {EMBEDDED_MODEL}  # or a Hugging Face id, or a local folder",
        "  max_length: 128                # tokens; tuneline audit tells how many texts are longer",
        "  # long_texts: tail             # keep a long text's end; also head_tail, windows",
        "train:",
        "  epochs: 3",
        "  learning_rate: 5.0e-5",
        "  # tune: top_layers             # quicker, at a price in accuracy; also head, lora, bitfit (10x the rate)",
        "  # class_weights: true          # where a rare class matters as much as a frequent one",
        "register:",
        f"  name: {_value(name)}",
        "  rules:",
        "    beats_baseline: true         # better than TF-IDF with logistic regression, beyond chance",
        "    # min_macro_f1: 0.8",
    ]
    return "\n".join(lines) + "\n"


def _value(text: str) -> str:
    """A text as YAML writes it, quoted where it must be."""
    return yaml.safe_dump(text, allow_unicode=True, width=10**6).removesuffix("\n...\n").strip()


_PROFILE = """\
# A cluster's profile: where its Kubeflow answers and what each step's pod asks for. It serves every recipe.
# Write your own values in; docs/cluster.md tells of every key. Secrets are named here, never written.
server:
  endpoint: https://kubeflow.example.com/pipeline   # without /apis
  # namespace: my-team                              # where the server serves several
  auth: {token_env: KFP_TOKEN}                      # the environment variable that holds the token
images:
  prefix: registry.example.com/ml                   # where tuneline build --push put the images
env:
  MLFLOW_TRACKING_URI: http://mlflow.example.com:5000
  # TUNELINE_CHECKPOINTS: s3://bucket/checkpoints   # a retried training goes on from there
# secrets:
#   - name: mlflow-auth
#     keys: {username: MLFLOW_TRACKING_USERNAME, password: MLFLOW_TRACKING_PASSWORD}
steps:
  train:
    accelerator: {type: nvidia.com/gpu, count: 1}   # leave out to train on processors
    cpu_request: "4"
    memory_request: 16Gi
    memory_limit: 32Gi
    shared_memory: 8Gi
"""
