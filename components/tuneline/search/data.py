"""Prepared data for trials: reused from search to search, without the test split, and parts of it.

A trial cannot read what is not there: prepare writes three splits, and the folder that trials get holds two of them.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneline import clean, tables, tokenizer, tokens
from tuneline import prepare as steps
from tuneline.artifacts import SLICE, PreparedData, address, locked, read_split, source_hash, split_writer
from tuneline.config import DataConfig, ModelConfig
from tuneline.prepare.imbalance import plan
from tuneline.prepare.prepare import pin, prepare
from tuneline.prepare.staging import staged

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def prepared(data: DataConfig, model: ModelConfig, root: Path, unpinned: str) -> Path:
    """The folder of this data as this model reads it, made where there is none: train, validation and tokenizer.

    Args:
        data: sources, columns, splits.
        model: tokenizer, the longest text, and what is kept of longer ones.
        root: where such folders are kept.
        unpinned: stands in the place of a content hash where a source has none, so that no other search takes it.

    Raises:
        InputError: as of prepare.
    """
    data = _quick(data)
    name = address(data=data.model_dump(exclude={"workers"}), model=model.model_dump(),
                   pin=pin(data, model) or unpinned, code=_code())  # fmt: skip
    folder = root / name
    with locked(root / f"{name}.lock"):
        if not (folder / "manifest.json").is_file():
            without_test(data, model, folder)
    return folder


def without_test(data: DataConfig, model: ModelConfig, folder: Path) -> None:
    """Prepare the data as this model reads it, and keep train, validation and tokenizer in the folder.

    Raises:
        InputError: as of prepare.
    """
    with staged(folder) as stage:
        prepare(_quick(data), model, stage.work / "data")
        for kept in ("manifest.json", "train.arrow", "validation.arrow", "tokenizer"):
            (stage.work / "data" / kept).rename(stage.out / kept)


def _quick(data: DataConfig) -> DataConfig:
    """Without the search for labels that look wrong: a page for people, which takes longer than all else."""
    return data.model_copy(update={"label_errors": False})


def _code() -> str:
    """A hash of the code that decides what is prepared."""
    places = [Path(module.__file__ or "") for module in (steps, tables, clean, tokens, tokenizer)]
    return source_hash(places[0].parent, places[1].parent, *places[2:])[:16]


def folds(data: Path, count: int, root: Path) -> list[Path]:
    """The rows of train and validation in `count` parts, each once as the validation split and else in training.

    Classes are spread evenly, equal texts stay together, and the same data always give the same folds.

    Args:
        data: prepared data.
        count: how many.
        root: where to write; folds that are there are reused.
    """
    import pyarrow as pa

    manifest = PreparedData.load(data)
    together = pa.concat_tables([_as_trained(read_split(data, name)) for name in ("train", "validation")])
    part = spread(together.column("text").to_pylist(), together.column("label").to_numpy(), count)
    found = []
    for number in range(count):
        what = f"fold {number + 1} of {count}"
        held = pa.array(part == number)
        rows = {"train": together.filter(pa.array(part != number)), "validation": together.filter(held)}
        found.append(_view(data, manifest, rows, what, root))
    return found


def _as_trained(table: pa.Table) -> pa.Table:
    """Without slice.NAME, which trials do not read: a validation split from a source of its own has none."""
    return table.drop_columns([name for name in table.column_names if name.startswith(SLICE)])


def share(data: Path, part: float, root: Path) -> Path:
    """The same validation split, and a share of the training rows, classes as in all of them.

    A smaller share's rows stand in every larger one.
    """
    if part >= 1:
        return data
    import numpy as np
    import pyarrow as pa

    manifest, train = PreparedData.load(data), read_split(data, "train")
    labels = train.column("label").to_numpy()
    order, keep = _order(train.column("text").to_pylist()), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        keep[of_class[: max(1, round(part * len(of_class)))]] = True
    rows = {"train": train.filter(pa.array(keep)), "validation": read_split(data, "validation")}
    return _view(data, manifest, rows, f"{part:.4f} of train", root)


def first_rows(table: pa.Table, most: int) -> np.ndarray:
    """At most so many rows, those whose text's hash comes first: a sample that is the same each time.

    One row of each class stands before all others, because a sample of one class would tell nothing.
    """
    import numpy as np

    order = _order(table.column("text").to_pylist())
    first = np.zeros(len(order), bool)
    first[np.unique(table.column("label").to_numpy()[order], return_index=True)[1]] = True
    return np.concatenate([order[first], order[~first]])[:most]


def _order(texts: list[str]) -> np.ndarray:
    """Rows by the hash of their text."""
    import numpy as np

    hashes = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts]
    return np.argsort(np.frombuffer(b"".join(hashes), "<u8"), kind="stable")


def spread(texts: list[str], labels: np.ndarray, count: int) -> np.ndarray:
    """The part, from 0, of each row, int [rows]: every class dealt out in turn, equal texts to one part."""
    import numpy as np

    dealt: dict[str, int] = {}
    turn = np.zeros(int(labels.max(initial=0)) + 1, int)
    found = np.zeros(len(labels), int)
    for row in _order(texts).tolist():
        if texts[row] not in dealt:
            dealt[texts[row]] = int(turn[labels[row]] + labels[row]) % count  # not all classes begin with part 0
            turn[labels[row]] += 1
        found[row] = dealt[texts[row]]
    return found


def _view(data: Path, manifest: PreparedData, rows: dict[str, pa.Table], what: str, root: Path) -> Path:
    """A folder of other rows of the same data; its hashes differ, so that nothing kept for all rows is taken for it."""
    sha256 = {name: address(of=manifest.sha256["all"], part=what, split=name) for name in (*rows, "all")}
    folder = root / address(data=manifest.sha256, tokenizer=manifest.tokenizer_sha256,
                            cut=[manifest.max_length, manifest.long_texts], part=what)  # fmt: skip
    if (folder / "manifest.json").is_file():
        return folder
    import numpy as np

    counts = {
        name: np.bincount(table.column("label").to_numpy(), minlength=len(manifest.labels)).tolist()
        for name, table in rows.items()
    }
    with staged(folder) as stage:
        for name, table in rows.items():
            with split_writer(stage.out, name, table.schema) as writer:
                writer.write_table(table)
        shutil.copytree(data / "tokenizer", stage.out / "tokenizer")
        replace(
            manifest, rows={name: len(table) for name, table in rows.items()}, sha256=sha256, class_counts=counts,
            class_weights=plan(counts["train"]).class_weights, notes=[*manifest.notes, what], sampling={},
            unordered_sha256={},
        ).save(stage.out)  # fmt: skip
    return folder
