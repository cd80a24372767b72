"""What the frozen lower part of a network gives is computed once, and only the rest trains.

Its states are kept on disk, memory-mapped, under a key of data, weights and code: below $TUNELINE_CHECKPOINTS, where
the next training of the same data finds them, or else in a temporary folder. In bf16 where training is, else in fp32,
so that the weights become those of a training without. What does not fit is computed at every step, which is told.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuneline.artifacts import address
from tuneline.config import TrainConfig
from tuneline.progress import Progress, say
from tuneline.storage import ABANDONED_SECONDS, CHECKPOINTS, DamagedError, LocalStore, last_change
from tuneline.train.checkpoints import code_hash
from tuneline.train.cut import AboveEncoder, above_for
from tuneline.train.group import Group
from tuneline.train.loop import Examples
from tuneline.train.passes import passes
from tuneline.train.precision import uses_bf16

FOLDER = "states"
"""Below $TUNELINE_CHECKPOINTS."""
FREE_SHARE = 0.9
"""Of the disk's free space; the rest is left to others."""

Splits = dict[str, Examples]


@dataclass(frozen=True, kw_only=True)
class Kept(Examples):
    """Texts whose states are known.

    Attributes:
        states: of all texts, one text after the other, [states, width], memory-mapped.
        starts: where each text's begin, and the end.
    """

    states: torch.Tensor
    starts: list[int]

    def rows(self, batch: list[int]) -> tuple[Any, Any]:
        """What the upper part takes: states, and how many each text has."""
        parts = [self.states[self.starts[index] : self.starts[index + 1]] for index in batch]
        return torch.cat(parts), tuple(len(part) for part in parts)


class States:
    """The states of all splits in a folder, a file each.

    Args:
        above: what they are for.
        splits: the token rows.
        settings: precision, pass_tokens.
    """

    def __init__(self, above: AboveEncoder, splits: Splits, settings: TrainConfig) -> None:
        self.above, self.splits, self.settings = above, splits, settings
        self.low = uses_bf16(settings.precision, above.network.device)
        self.dtype, self.width = above.dtype(self.low), above.network.config.hidden_size
        self.starts = {name: [0, *accumulate(above.counts(part.lengths))] for name, part in splits.items()}
        self.bytes = sum(starts[-1] for starts in self.starts.values()) * self.width * self.dtype.itemsize

    def compute(self, folder: Path) -> None:
        """Write the files.

        Raises:
            OSError: the disk is full.
        """
        self.above.eval()
        progress = Progress("states", sum(len(part.lengths) for part in self.splits.values()), "texts")
        done = 0
        for name, examples in self.splits.items():
            states = self._new_file(folder / name, self.starts[name][-1])
            order = sorted(range(len(examples.lengths)), key=examples.lengths.__getitem__)
            for batch in passes(order, examples.lengths, self.settings.pass_tokens):
                self._compute(examples, batch, states, self.starts[name])
                progress.update(done := done + len(batch))

    @torch.inference_mode()
    def _compute(self, examples: Examples, batch: list[int], states: torch.Tensor, starts: list[int]) -> None:
        with torch.autocast(self.above.packed.device.type, torch.bfloat16, enabled=self.low):
            found = self.above.below(*examples.rows(batch)).cpu()
        counts = [starts[index + 1] - starts[index] for index in batch]
        for index, part in zip(batch, found.split(counts), strict=True):
            states[starts[index] : starts[index + 1]] = part

    def _new_file(self, path: Path, count: int) -> torch.Tensor:
        with path.open("wb") as file:  # a full disk is an error here, and would be a signal in the mapped file
            os.posix_fallocate(file.fileno(), 0, count * self.width * self.dtype.itemsize)
        return self._map(path, count, shared=True)

    def _map(self, path: Path, count: int, shared: bool) -> torch.Tensor:
        flat = torch.from_file(str(path), shared=shared, size=count * self.width, dtype=self.dtype)
        return flat.view(count, self.width)

    def kept(self, folder: Path) -> Splits:
        """The splits, with what the files hold."""
        found: Splits = {}
        for name, part in self.splits.items():
            values = {field.name: getattr(part, field.name) for field in fields(part)}
            states = self._map(folder / name, self.starts[name][-1], shared=False)
            found[name] = Kept(**values, states=states, starts=self.starts[name])
        return found


@contextmanager
def above_the_cut(
    classifier: nn.Module, splits: Splits, settings: TrainConfig, group: Group, origin: dict[str, Any]
) -> Iterator[tuple[nn.Module, Splits]]:
    """What train_loop takes: the tuned part and the states below it, or the classifier and the token rows as they are.

    Args:
        classifier: frozen as settings say (freezing.freeze).
        splits: the token rows.
        settings: tune, top_layers, cache, cache_gib.
        group: the processes that train together; the first of a machine computes for all there.
        origin: what the states depend on beside the cut: data, weights.
    """
    above = above_for(classifier, settings) if settings.cache else None
    if above is None:
        if settings.cache and settings.tune in ("top_layers", "head"):
            _tell(group, "rows that are padded have no cache: the frozen layers are computed at every step")
        yield classifier, splits
        return
    states = States(above, splits, settings)
    key = address(**origin, below=above.cut, dtype=str(states.dtype), low=states.low, code=code_hash())
    with _root(group) as root:
        kept = _found(states, LocalStore(root), key, settings.cache_gib, group)
        yield (above, kept) if kept else (classifier, splits)


@contextmanager
def _root(group: Group) -> Iterator[Path]:
    """The folder for states: one that stays, beside the checkpoints, or a temporary one, alike for all processes."""
    place = os.environ.get(CHECKPOINTS, "")
    if place and not place.startswith("s3://"):
        yield Path(place) / FOLDER
        return
    token = bytes(group.gather(torch.tensor(list(uuid.uuid4().bytes)))[0].tolist()).hex()
    root = Path(tempfile.gettempdir()) / f"tuneline-{token}"
    root.mkdir(mode=0o700, exist_ok=True)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)  # what is mapped stays until its process ends


def _found(states: States, store: LocalStore, key: str, gib: float, group: Group) -> Splits | None:
    """The kept states, computed where they are not there; None, and told, where there is no room or no disk."""
    machine_first = int(os.environ.get("LOCAL_RANK", group.rank)) == 0
    problem = ""
    for mine in (group.rank == 0, machine_first and group.rank > 0):  # machines may share the folder: one, then others
        if mine and not problem:
            problem = _make(states, store, key, gib)
        if group.highest(int(bool(problem)), states.above.packed.device):  # NCCL takes no tensor of a CPU
            _tell(group, f"{problem or 'no cache on another machine'}: the frozen layers are computed at every step")
            return None
    return states.kept(store.root / key)  # checked, or just written, by the machine's first process


def _make(states: States, store: LocalStore, key: str, gib: float) -> str:
    """Have the states in the store; what hinders it, in words."""
    try:
        with store.loading(key):
            say("[train] the frozen layers' states are known from an earlier training")
            return ""
    except (DamagedError, OSError):
        pass
    try:
        if problem := _make_room(store.root, states.bytes, gib * 2**30):
            return problem
        started = time.perf_counter()
        with store.saving(key) as folder:
            states.compute(folder)
    except OSError as error:
        return f"states of the frozen layers cannot be written ({error.strerror or type(error).__name__})"
    took = time.perf_counter() - started
    say(f"[train] the frozen layers' states: {states.bytes / 2**20:,.0f} MiB in {took:.1f} s, {store.root / key}")
    return ""


def _make_room(root: Path, wanted: int, limit: float) -> str:
    """Remove the oldest states until there is room under the limit; what hinders it, in words."""
    if wanted > limit:
        return f"states of {wanted / 2**30:.1f} GiB exceed train.cache_gib ({limit / 2**30:g})"
    root.mkdir(parents=True, exist_ok=True)
    known = sorted((path for path in root.iterdir() if path.is_dir()), key=last_change)
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in known}
    for path in known:
        abandoned = path.name.startswith(".") and time.time() - last_change(path) > ABANDONED_SECONDS
        if abandoned or (not path.name.startswith(".") and sum(sizes.values()) + wanted > limit):
            shutil.rmtree(path, ignore_errors=True)
            del sizes[path]
    free = shutil.disk_usage(root).free * FREE_SHARE
    return f"states of {wanted / 2**30:.1f} GiB do not fit the disk ({free / 2**30:.1f} free)" if wanted > free else ""


def _tell(group: Group, what: str) -> None:
    if not group.rank:
        say(f"[train] {what}")
