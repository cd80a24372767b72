"""An output folder that is there whole, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Stage(NamedTuple):
    """Two empty folders beside the output: what will be the output, and what will not outlive it."""

    out: Path
    work: Path


@contextmanager
def staged(out: Path) -> Iterator[Stage]:
    """Folders to work in; at the end the first of them takes the place of `out`, unless there was an error.

    On the same disk as the output, because that has room for as much.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        stage = Stage(Path(folder) / "out", Path(folder) / "work")
        for each in stage:
            each.mkdir()
        yield stage
        if out.exists():
            shutil.rmtree(out)
        stage.out.replace(out)
