"""Chunks of rows: one record batch of a memory-mapped file, and one task of a worker.

Their borders depend on the rows alone, so that neither a reader's batches nor the number of workers change a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ROWS, BYTES = 4096, 4 * 2**20
"""A chunk ends after so many rows, or with the row whose text makes it so large."""


def chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of a fixed size."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows, size = 0, 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + len(batch), size + int(_sizes(batch).sum())
        while rows >= ROWS or size >= BYTES:
            table = pa.Table.from_batches(held)
            end = min(ROWS, int(_sizes(table).cumsum().searchsorted(BYTES)) + 1)
            yield _compact(table.slice(0, end))
            held = table.slice(end).to_batches()
            rows, size = rows - end, sum(int(_sizes(part).sum()) for part in held)
    if rows:
        yield _compact(pa.Table.from_batches(held))


def _sizes(rows: pa.RecordBatch | pa.Table) -> np.ndarray:
    """Bytes of text in each row."""
    import numpy as np
    import pyarrow.compute

    columns = [rows.column(name) for name in ("text", "pair") if name in rows.schema.names]
    compute: Any = pyarrow.compute  # its functions are made when it is imported
    lengths = [compute.fill_null(compute.binary_length(column), 0) for column in columns]
    return np.sum([np.asarray(each, np.int64) for each in lengths], axis=0)


def _compact(rows: pa.Table) -> pa.RecordBatch:
    """One batch that holds these rows and no others: a slice would be sent to a worker with all of its buffers."""
    import pyarrow as pa

    (batch,) = rows.combine_chunks().to_batches()
    return pa.ipc.read_record_batch(batch.serialize(), batch.schema)


def lists(batch: pa.RecordBatch) -> tuple[list[str], list[str] | None]:
    """The texts of a chunk, and their seconds where there are pairs."""
    pairs = batch.column("pair").to_pylist() if "pair" in batch.schema.names else None
    return batch.column("text").to_pylist(), pairs


class Chunks:
    """A file of chunks, mapped into memory."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._file = pa.ipc.open_file(pa.memory_map(str(path)))

    def take(self, chunk: int, rows: np.ndarray) -> pa.RecordBatch:
        """Rows of a chunk, counted from its first."""
        import pyarrow as pa

        return self._file.get_batch(chunk).take(pa.array(rows))
