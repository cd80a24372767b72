"""Training that cannot be lost: its whole state saved now and then, and taken up again where it stopped, bit for bit.

A checkpoint's address is a function of data, configuration and code ($TUNELINE_CHECKPOINTS/KEY/step-NUMBER), not of the
step's own output folder, which a retry gets anew. The newest whose manifest holds is used, an older one where it does
not. SIGTERM saves at the end of the optimizer step under way.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tuneline.artifacts import read_json, source_hash, write_json
from tuneline.config import TrainConfig
from tuneline.progress import say
from tuneline.stopping import handled
from tuneline.storage import CHECKPOINTS, DamagedError, Store, open_store
from tuneline.train.best import Best, tuned
from tuneline.train.group import Group

KEEP = 2


@dataclass
class Position:
    """How far training is: optimizer steps done, tokens in them, seconds by kind (meters.py), and epochs measured."""

    step: int = 0
    tokens: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    measured: int = 0


def code_hash() -> str:
    """A hash of the code that decides a training's course: this package's, and how rows are made and packed."""
    here = Path(__file__).parent
    names = ("inputs.py", "packing.py", "attention.py", "linear.py", "fused.py", "fused_gpu.py")
    return source_hash(here, *(here.parent / name for name in names))


class Checkpoints:
    """Saves a training's state, and finds it again.

    Args:
        store: where to; None saves nothing, and stops at once on SIGTERM.
        group: the processes that train together; the first one saves.
        every_seconds: the time between two checkpoints; 0 saves after every step.
        best: the best epoch so far, which is saved and found with the rest; None where the last one is kept.
    """

    def __init__(self, store: Store | None, group: Group, every_seconds: float, best: Best | None = None) -> None:
        self.store, self.group, self.every_seconds, self.best = store, group, every_seconds, best
        self._saved = time.monotonic()
        self._signal = 0

    def listening(self) -> AbstractContextManager[None]:
        """While this lasts, SIGTERM, Ctrl-C and a closed terminal only ask for an end, which `after_step` brings."""
        return handled(self._ask) if self.store else nullcontext()

    def _ask(self, number: int, _frame: Any) -> None:
        self._signal = number

    @property
    def wish(self) -> int:
        """What this process would do now: 2 stops, 1 saves, 0 goes on; the group does what the highest wish is."""
        if self._signal:
            return 2
        due = self.store and not self.group.rank and time.monotonic() - self._saved >= self.every_seconds
        return int(bool(due))

    def after_step(self, wish: int, position: Position, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Save, and stop, where the group wishes it; `wish` is the highest of its processes."""
        if wish:
            self.save(position, model, optimizer)
        if wish == 2:
            self._stop(position)

    def between_batches(self, position: Position, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Stop a lone process that measures, which may take minutes; in a group the next step's end does."""
        if self._signal and self.group.size == 1:
            self.after_step(2, position, model, optimizer)

    def _stop(self, position: Position) -> NoReturn:
        say(f"[train] stopped after step {position.step}; the same command goes on from there")
        sys.exit(128 + (self._signal or signal.SIGTERM))

    def save(self, position: Position, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Save the state, keep the newest two; a store that is away or full is told, and training goes on."""
        if self.store is None:
            return
        randomness = self._randomness(model)
        if self.group.rank:
            return
        try:
            with self.store.saving(f"step-{position.step:09d}") as folder:
                _write(folder, position, model, optimizer, randomness, self.best)
            for old in self._names()[:-KEEP]:
                self.store.remove(old)
        except Exception as error:  # a disk, a network or a server; training is worth more than its checkpoint
            say(f"[train] checkpoint of step {position.step} not saved: {type(error).__name__}: {error}")
        self._saved = time.monotonic()

    def _randomness(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The state of every process's random generators, which dropout draws from."""
        found = {f"cpu.{rank}": state for rank, state in enumerate(self.group.gather(torch.get_rng_state()))}
        if next(model.parameters()).is_cuda:
            states = self.group.gather(torch.cuda.get_rng_state())
            found |= {f"cuda.{rank}": state for rank, state in enumerate(states)}
        return found

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
        """Load the newest state that is whole into model, optimizer and random generators; the start without one.

        Raises:
            RuntimeError: one process read it and another could not; each would wait for the other.
        """
        position = self._newest(model, optimizer)
        device = next(model.parameters()).device
        if self.group.highest(position.step, device) != -self.group.highest(-position.step, device):
            raise RuntimeError(f"this process goes on from step {position.step} and another does not; start them again")
        return position

    def _newest(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
        if self.store is None:
            return Position()
        for name in reversed(self._names()):
            try:
                with self.store.loading(name) as folder:
                    position = _read(folder, model, optimizer, self.group, self.best)
            except DamagedError as error:
                say(f"[train] checkpoint passed over: {error}")
                continue
            say(f"[train] goes on from the checkpoint of step {position.step}")
            return position
        return Position()

    def _names(self) -> list[str]:
        return [name for name in self.store.names() if name.startswith("step-")] if self.store else []


def open_checkpoints(training: str, group: Group, settings: TrainConfig) -> Checkpoints:
    """The checkpoints of a training (its `key`) at $TUNELINE_CHECKPOINTS; none where it is not to be resumed."""
    place = os.environ.get(CHECKPOINTS)
    store = open_store(f"{place.rstrip('/')}/{training}") if place else None
    if store and not settings.resume and not group.rank:
        for name in store.names():
            store.remove(name)
    return Checkpoints(store, group, settings.checkpoint_minutes * 60, Best.of(settings))


def _write(
    folder: Path,
    position: Position,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    randomness: dict[str, torch.Tensor],
    best: Best | None,
) -> None:
    weights = tuned(model)
    tree = optimizer.state_dict()["state"]
    moments = {f"{number}.{name}": value for number, state in tree.items() for name, value in state.items()}
    for file, tensors in (("model", weights), ("optimizer", moments)):
        whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(whole, folder / f"{file}.safetensors")
    save_file(randomness, folder / "random.safetensors")
    write_json(folder / "position.json", asdict(position))
    if best and best.epoch:
        save_file(best.weights, folder / "best.safetensors")
        write_json(folder / "best.json", {"epoch": best.epoch, "value": best.value})


def _read(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, group: Group, best: Best | None
) -> Position:
    device = next(model.parameters()).device
    randomness = load_file(folder / "random.safetensors")
    if f"cpu.{group.size - 1}" not in randomness:  # the same of every process: all go on from there, or none
        raise DamagedError(f"{folder.name}: saved by fewer processes than train now")
    weights = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, weight in tuned(model).items():
            weight.copy_(weights[name])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(folder / "optimizer.safetensors").items():
        number, _, what = name.partition(".")
        state.setdefault(int(number), {})[what] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    torch.set_rng_state(randomness[f"cpu.{group.rank}"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(randomness[f"cuda.{group.rank}"])
    if best and (folder / "best.json").exists():
        known = read_json(folder / "best.json")
        best.epoch, best.value = known["epoch"], known["value"]
        best.weights = {name: value.to(device) for name, value in load_file(folder / "best.safetensors").items()}
    return Position(**read_json(folder / "position.json"))
