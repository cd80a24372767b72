"""Tokenizes the rows in use once and writes them as a split that the GPU step can map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tuneline.artifacts import split_writer
from tuneline.config import ModelConfig
from tuneline.prepare.chunks import Chunks, lists
from tuneline.prepare.identity import Identity, frames
from tuneline.prepare.parts import Part
from tuneline.prepare.workers import Pool
from tuneline.progress import Progress
from tuneline.tokens import Encoder

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Selection(NamedTuple):
    """Rows of a chunk, and what is to be written beside their texts; arrays of one entry a row.

    Attributes:
        chunk: number of the chunk.
        local: rows counted from the chunk's first, ascending.
        rows: places in the source, from 0; int64.
        labels: index into the model's labels, int32.
    """

    chunk: int
    local: np.ndarray
    rows: np.ndarray
    labels: np.ndarray


class Tokenized(NamedTuple):
    """A worker's answer: rows to write, what they are hashed by, and how long the uncut texts are in tokens."""

    batch: pa.RecordBatch
    frames: bytes
    digests: bytes
    totals: np.ndarray


@dataclass(frozen=True)
class Tokenize:
    """A worker's work on a selection.

    Attributes:
        path: the file of chunks.
        checkpoint: folder with tokenizer.json.
        max_length: longest row in tokens.
        long_texts: what is kept of longer texts.
        labels: the model's labels.
    """

    path: Path
    checkpoint: Path
    max_length: int
    long_texts: str
    labels: list[str]

    @cached_property
    def _chunks(self) -> Chunks:
        return Chunks(self.path)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.checkpoint, self.max_length, self.long_texts)

    def __call__(self, selection: Selection) -> Tokenized:
        """Tokenize and hash."""
        import pyarrow as pa

        batch = self._chunks.take(selection.chunk, selection.local)
        texts, pairs = lists(batch)
        tokens = self._encoder.encode(texts, pairs)
        names = [self.labels[index] for index in selection.labels.tolist()]
        written = {
            "row": pa.array(selection.rows, pa.int64()),
            **dict(zip(batch.schema.names, batch.columns, strict=True)),
            "label": pa.array(selection.labels, pa.int32()),
            **tokens.columns(),
            "cut": pa.array((tokens.total > self.max_length) & (self.long_texts != "windows")),
        }
        columns = [texts, names] if pairs is None else [texts, pairs, names]
        return Tokenized(pa.record_batch(written), *frames(columns), tokens.total)


@dataclass(frozen=True)
class Written:
    """What is known of a split once it is written.

    Attributes:
        identity: its hashes.
        totals: int32 [rows], length of each uncut text in tokens.
    """

    identity: Identity
    totals: np.ndarray


def write(
    out: Path, name: str, part: Part, codes: np.ndarray, labels: list[str], checkpoint: Path, model: ModelConfig,
    pool: Pool,
) -> Written:  # fmt: skip
    """Write one split, which must have rows.

    Args:
        out: folder to write into.
        name: the split.
        part: its rows.
        codes: the model's label of each row, int32.
        labels: the model's labels.
        checkpoint: folder with tokenizer.json.
        model: longest row in tokens, and what is kept of longer ones.
        pool: who tokenizes.

    Raises:
        InputError: the checkpoint has no fast tokenizer.
    """
    import numpy as np

    work = Tokenize(part.table.path, checkpoint, model.max_length, model.long_texts, labels)
    answers = pool.map(work, selections(part, codes))
    identity, totals, done = Identity(), [], 0
    progress = Progress("prepare", len(part.rows), f"{name} texts")
    first = next(answers)
    with split_writer(out, name, first.batch.schema) as writer:
        for answer in chain([first], answers):
            writer.write_batch(answer.batch)
            identity.add(answer.frames, answer.digests)
            totals.append(answer.totals)
            done += len(answer.batch)
            progress.update(done)
    return Written(identity, np.concatenate(totals))


def selections(part: Part, codes: np.ndarray) -> Iterator[Selection]:
    """The part's rows chunk by chunk; chunks without any are left out."""
    import numpy as np

    starts = part.table.starts
    borders = np.searchsorted(part.rows, starts)
    for chunk in np.flatnonzero(np.diff(borders)).tolist():
        here = slice(borders[chunk], borders[chunk + 1])
        yield Selection(chunk, part.rows[here] - starts[chunk], part.rows[here], codes[here])
