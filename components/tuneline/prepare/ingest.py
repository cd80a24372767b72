"""From sources to chunks: rows are written as they come to a memory-mapped file, and looked at chunk by chunk.

What stays in memory is a few numbers for each row, never the texts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tuneline.artifacts import SLICE
from tuneline.clean import clean, fixes_of
from tuneline.config import DataConfig
from tuneline.errors import InputError
from tuneline.prepare import sources, split
from tuneline.prepare.chunks import Chunks, chunks, lists
from tuneline.prepare.corrections import Corrections
from tuneline.prepare.workers import Pool
from tuneline.progress import say

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MOST_LABELS = 10_000
"""Different labels beyond which a column is taken for something else."""
NO_LABEL, DROPPED = -1, -2
_EVERY = 10.0
"""Seconds between two lines about a source that is being read."""


class Labels:
    """The label names met so far, in the order of their first appearance."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._index: dict[str, int] = {}

    def codes(self, column: pa.Array, place: str) -> np.ndarray:
        """Their numbers, int32; NO_LABEL where there is none.

        Raises:
            InputError: there are more different ones than any classifier has classes.
        """
        import numpy as np

        found = column.dictionary_encode()
        numbers = [self._code(name) for name in found.dictionary.to_pylist()]
        if len(self.names) > MOST_LABELS:
            raise InputError(f"{place}: more than {MOST_LABELS} different labels; is data.label_column the right one?")
        positions = np.asarray(found.indices.fill_null(len(numbers)))
        return np.array([*numbers, NO_LABEL], np.int32)[positions]

    def _code(self, name: str) -> int:
        if name not in self._index:
            self._index[name] = len(self.names)
            self.names.append(name)
        return self._index[name]


class Examined(NamedTuple):
    """A chunk as it left a worker: cleaned rows, what is known of each, and their places."""

    batch: pa.RecordBatch
    facts: dict[str, np.ndarray]
    places: dict[str, np.ndarray]


@dataclass(frozen=True)
class Examine:
    """A worker's look at a chunk.

    Attributes:
        fixes: what is cleaned out of the texts, as `clean` names it.
        near: data.near_duplicates.
        seed: seed of splits and samples.
        purposes: split, sample or both: which places are drawn.
    """

    fixes: tuple[str, ...]
    near: float
    seed: int
    purposes: tuple[str, ...]

    def __call__(self, batch: pa.RecordBatch) -> Examined:
        """Clean, hash and count."""
        from tuneline.prepare import facts

        texts, pairs = lists(batch)
        raw = None
        if self.fixes:
            raw = facts.flags(texts, pairs)
            texts = [clean(text, self.fixes) for text in texts]
            pairs = [clean(pair, self.fixes) for pair in pairs] if pairs else pairs
            batch = _with_texts(batch, texts, pairs)
        places = {purpose: self._places(purpose, batch, texts, pairs) for purpose in self.purposes}
        return Examined(batch, facts.examine(texts, pairs, self.near, raw), places)

    def _places(self, purpose: str, batch: pa.RecordBatch, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        """A split is drawn by the group, else by the text, so that a premise stays with all of its hypotheses."""
        if purpose == "split" and "group" in batch.schema.names:
            groups = batch.column("group").to_pylist()
            keys = [text if group is None else f"group\0{group}" for text, group in zip(texts, groups, strict=True)]
        elif purpose == "sample" and pairs is not None:
            keys = [f"{text}\0{pair}" for text, pair in zip(texts, pairs, strict=True)]
        else:
            keys = texts
        return split.places(keys, self.seed, purpose)


def _with_texts(batch: pa.RecordBatch, texts: list[str], pairs: list[str] | None) -> pa.RecordBatch:
    import pyarrow as pa

    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["text"] = pa.array(texts, pa.large_string())
    if pairs is not None:
        columns["pair"] = pa.array(pairs, pa.large_string())
    return pa.record_batch(columns)


@dataclass
class Table:
    """One source's rows: texts in a file of chunks, the rest in arrays of one entry a row, in the source's order.

    Attributes:
        uri: where they came from.
        version: the source's own name for what it held; empty where it has none.
        path: Arrow file with the columns text, with pairs pair, and slice.NAME by data.slice_columns; a batch a chunk.
        starts: the first row of each chunk, and the end of the last; int64 [chunks + 1].
        labels: int32, as Labels numbers them; NO_LABEL, and DROPPED where a correction took the row out.
        facts: as facts.examine gives them.
        places: uint64 for each purpose.
        times: int64, microseconds since 1970; None without a time column.
    """

    uri: str
    version: str
    path: Path
    starts: np.ndarray
    labels: np.ndarray
    facts: dict[str, np.ndarray]
    places: dict[str, np.ndarray]
    times: np.ndarray | None

    @cached_property
    def chunks(self) -> Chunks:
        """The texts."""
        return Chunks(self.path)

    def texts(self, rows: np.ndarray) -> list[str]:
        """The texts of these rows, in this order; a pair is parted by a line break."""
        import numpy as np

        found: dict[int, str] = {}
        at = np.searchsorted(self.starts, rows, side="right") - 1
        for chunk in np.unique(at):
            here = np.unique(rows[at == chunk])
            texts, pairs = lists(self.chunks.take(int(chunk), here - self.starts[chunk]))
            if pairs:
                texts = [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)]
            found.update(zip(here.tolist(), texts, strict=True))
        return [found[row] for row in rows.tolist()]


class _Stack:
    """Arrays of one entry a row that grow chunk by chunk."""

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self._parts.setdefault(name, []).append(array)

    def whole(self) -> dict[str, np.ndarray]:
        """Each in one piece; the pieces are given up one after the other."""
        import numpy as np

        return {name: np.concatenate(self._parts.pop(name)) for name in list(self._parts)}


def read(
    uri: str, name: str, data: DataConfig, labels: Labels, pool: Pool, folder: Path, corrections: Corrections | None
) -> Table:
    """Read one split, look at every row and keep the texts in a file.

    Args:
        uri: the source.
        name: the split that it gives.
        data: how it is read, cleaned, split and sampled.
        labels: where label names are numbered.
        pool: who looks.
        folder: where the file goes.
        corrections: corrected labels; None where there are none.

    Raises:
        InputError: not readable, or without rows.
    """
    import numpy as np
    import pyarrow as pa

    source = sources.open_source(uri, name, data)
    path, starts = folder / f"{name}.chunks.arrow", [0]
    facts, places, own = _Stack(), _Stack(), _Stack()
    schema = pa.schema([(kind, pa.large_string()) for kind in _kept(data, name)])
    told = _Told(name)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for found in pool.map(examination(name, data), chunks(source.batches)):
            writer.write_batch(found.batch.select(schema.names))
            facts.add(found.facts)
            places.add(found.places)
            own.add({"labels": _labels(found.batch, labels, corrections, f"data.{name}: {uri}")})
            if data.time_column:
                own.add({"times": _microseconds(found.batch.column("time"))})
            starts.append(starts[-1] + len(found.batch))
            told.update(starts[-1])
    if len(starts) == 1:
        raise InputError(f"{uri}: holds no rows")
    columns = own.whole()
    return Table(
        uri, source.version, path, np.array(starts), columns["labels"], facts.whole(), places.whole(),
        columns.get("times"),
    )  # fmt: skip


def examination(name: str, data: DataConfig) -> Examine:
    """What a worker does with the chunks of this split."""
    drawn = {"train": data.max_train, "validation": data.max_validation, "test": data.max_test}
    makes = name == "train" and not (data.validation and data.test)
    samples = any(keep for split_, keep in drawn.items() if split_ == name or (makes and not getattr(data, split_)))
    purposes = [purpose for purpose, asked in (("split", makes), ("sample", samples)) if asked]
    return Examine(tuple(fixes_of(data.policy)), data.near_duplicates, data.seed, tuple(purposes))


def _kept(data: DataConfig, name: str) -> list[str]:
    """The columns of the file of chunks."""
    texts = ["text", "pair"] if data.pair_column else ["text"]
    return texts + [f"{SLICE}{column}" for column in sources.slices(data, name)]


def _labels(batch: pa.RecordBatch, labels: Labels, corrections: Corrections | None, place: str) -> np.ndarray:
    import numpy as np
    import pyarrow as pa

    given = batch.column("label")
    if corrections is None:
        return labels.codes(given, place)
    new, kept = corrections.apply(*lists(batch), given.to_pylist())
    return np.where(kept, labels.codes(pa.array(new, pa.large_string()), place), np.int32(DROPPED))


def _microseconds(times: pa.Array) -> np.ndarray:
    import numpy as np
    import pyarrow as pa

    return np.asarray(times.cast(pa.int64()))


class _Told:
    """Says now and then how many rows were read: how many there are is not known before the end."""

    def __init__(self, name: str) -> None:
        self.name, self.last = name, time.monotonic()

    def update(self, rows: int) -> None:
        if time.monotonic() - self.last >= _EVERY:
            self.last = time.monotonic()
            say(f"[prepare] {self.name}: {rows:,} rows read")
