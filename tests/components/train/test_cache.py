"""Training above kept states ends where training that computes them at every step does, and the cache is safe."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.components.test_packing import FAMILIES
from tests.components.test_packing import network as family
from tests.components.train.test_checkpoints import Stopped
from tests.components.train.test_loop import ignore
from tuneline.config import TrainConfig
from tuneline.packing import PackedClassifier, PaddedClassifier
from tuneline.storage import CHECKPOINTS, LocalStore
from tuneline.train import cache
from tuneline.train.cache import Kept, above_the_cut
from tuneline.train.checkpoints import Checkpoints
from tuneline.train.cut import above_for
from tuneline.train.freezing import freeze
from tuneline.train.group import Group
from tuneline.train.loop import Examples, train_loop

pytestmark = pytest.mark.medium

MODES = {"head": {"tune": "head"}, "top": {"tune": "top_layers", "top_layers": 1}, "both": {"tune": "top_layers"}}
CASES = [(name, mode) for name in FAMILIES for mode in MODES if mode == "head" or name != "albert"]
GROUP, ORIGIN = Group(), {"data": "of a test"}


def examples(count: int, seed: int) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 30, (count,), generator=draw).tolist()
    rows = [torch.randint(4, 40, (length,), generator=draw).tolist() for length in lengths]
    return Examples(rows, torch.randint(0, 3, (count,), generator=draw).tolist(), [length // 2 for length in lengths])


def splits() -> dict[str, Examples]:
    return {"train": examples(20, 1), "validation": examples(6, 2)}


def settings(mode: str, **changes: Any) -> TrainConfig:
    plain = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "checkpoint_minutes": 0}
    return TrainConfig(**plain | MODES[mode] | changes)


def fit(
    name: str, asked: TrainConfig, checkpoints: Checkpoints | None = None, stop_after: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights and metrics after training a tiny network of the family."""
    model = family(name)
    freeze(model, asked)
    torch.manual_seed(3)

    def on_step(step: int, _total: int, _facts: dict[str, float]) -> None:
        if step == stop_after:
            raise Stopped

    with above_the_cut(PackedClassifier(model), splits(), asked, GROUP, ORIGIN) as (tuned, parts):
        metrics = train_loop(
            tuned, parts["train"], parts["validation"], asked, on_step, ignore, checkpoints=checkpoints
        )
    return {key: weight.clone() for key, weight in model.state_dict().items()}, metrics


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_cached_and_uncached_trainings_end_alike(name, mode):
    before = family(name).state_dict()
    cached, metrics = fit(name, settings(mode))
    plain, plain_metrics = fit(name, settings(mode, cache=False))
    for key, weight in plain.items():
        if "key.bias" not in key:  # its true gradient is zero, so that AdamW follows rounding alone
            torch.testing.assert_close(cached[key], weight, atol=1e-5, rtol=1e-5, msg=key)
    assert metrics["validation_loss"] == pytest.approx(plain_metrics["validation_loss"], abs=1e-5)
    assert any(not torch.equal(before[key], weight) for key, weight in cached.items())


@pytest.mark.parametrize("name", ["bert", "gpt2", "modernbert"])
@pytest.mark.parametrize("mode", ["head", "top"])
def test_in_bf16_they_end_near_each_other(name, mode):
    cached, _ = fit(name, settings(mode, precision="bf16"))
    plain, _ = fit(name, settings(mode, precision="bf16", cache=False))
    start = family(name).state_dict()
    moves = [
        torch.cat([(end[key] - start[key]).flatten() for key in start if "key.bias" not in key])
        for end in (cached, plain)
    ]
    assert torch.nn.functional.cosine_similarity(*moves, dim=0) > 0.95


@pytest.mark.parametrize("name", ["bert", "gpt2", "modernbert mean"])
@pytest.mark.parametrize("mode", ["head", "top"])
def test_logits_above_kept_states_are_the_classifiers(name, mode):
    model = family(name)
    freeze(model, settings(mode))
    classifier = PackedClassifier(model)
    above = above_for(classifier, settings(mode))
    assert above
    rows, pair_at = examples(5, 4).rows([0, 1, 2, 3, 4])
    states = above.below(rows, pair_at)
    assert states.shape == (sum(above.counts([len(row) for row in rows])), 16)
    counts = tuple(above.counts([len(row) for row in rows]))
    torch.testing.assert_close(above(states, counts), classifier(rows, pair_at), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        classifier(rows, pair_at), PaddedClassifier(family(name))(rows, pair_at), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("mode", ["head", "top"])
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_training_goes_on_bit_for_bit(mode, stop_after, tmp_path):
    whole, _ = fit("bert", settings(mode))
    store = LocalStore(tmp_path)
    with pytest.raises(Stopped):
        fit("bert", settings(mode), Checkpoints(store, GROUP, 0), stop_after)
    found, _ = fit("bert", settings(mode), Checkpoints(store, GROUP, 0))
    assert all(torch.equal(found[key], weight) for key, weight in whole.items())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for states that stays."""
    monkeypatch.setenv(CHECKPOINTS, str(tmp_path))
    return tmp_path / cache.FOLDER


def test_the_next_training_finds_the_states(place, capsys):
    first, _ = fit("bert", settings("top"))
    told = capsys.readouterr().out
    assert "states: 0 MiB" in told
    assert "known from an earlier training" not in told
    assert len(list(place.iterdir())) == 1
    again, _ = fit("bert", settings("top", learning_rate=1e-3))
    assert "known from an earlier training" in capsys.readouterr().out
    assert all(torch.equal(first[key], weight) for key, weight in again.items())
    fit("bert", settings("top", precision="bf16"))
    fit("bert", settings("head"))
    assert len(list(place.iterdir())) == 3


@pytest.mark.parametrize("harm", ["flipped", "truncated", "deleted"])
def test_harmed_states_are_noticed_and_computed_anew(harm, place, capsys):
    whole, _ = fit("bert", settings("top"))
    path = next(place.glob("*/train"))
    content = path.read_bytes()
    if harm == "deleted":
        path.unlink()
    else:
        path.write_bytes(content[:-8] if harm == "truncated" else bytes([content[0] ^ 1]) + content[1:])
    capsys.readouterr()
    found, _ = fit("bert", settings("top"))
    assert "known from an earlier" not in capsys.readouterr().out
    assert all(torch.equal(found[key], weight) for key, weight in whole.items())


def test_states_above_the_limit_are_computed_at_every_step(place, capsys):
    asked = settings("top")
    plain, _ = fit("bert", settings("top", cache=False))
    found, _ = fit("bert", asked.model_copy(update={"cache_gib": 1e-6}))
    assert "exceed train.cache_gib (1e-06): the frozen layers are computed at every step" in capsys.readouterr().out
    assert all(torch.equal(found[key], weight) for key, weight in plain.items())
    assert not place.exists()


@dataclass(frozen=True)
class OneDevice(Group):
    """Two processes that exchange tensors of one device alone, as NCCL does with a GPU's."""

    device: str = ""

    def highest(self, value: int, device: torch.device) -> int:
        assert device.type == self.device
        return value


def test_processes_agree_about_the_states_on_the_networks_device(place):
    model = family("bert").to("meta")
    freeze(model, settings("top"))
    asked = settings("top").model_copy(update={"cache_gib": 1e-6})  # so that nothing is computed
    with above_the_cut(PackedClassifier(model), splits(), asked, OneDevice(0, 2, "meta"), ORIGIN) as (tuned, _):
        assert isinstance(tuned, PackedClassifier)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_processes_on_gpus_share_the_states(place):
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = family("bert").to("cuda")
        freeze(model, settings("top"))
        with above_the_cut(PackedClassifier(model), splits(), settings("top"), Group(0, 2), ORIGIN) as (_, parts):
            assert isinstance(parts["train"], Kept)
    finally:
        dist.destroy_process_group()


def test_a_full_disk_does_not_stop_training(place, monkeypatch, capsys):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 100}))
    fit("bert", settings("top"))
    assert "do not fit the disk (0.0 free): the frozen layers" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setenv(CHECKPOINTS, str(place.parent))
    place.rmdir()
    place.write_text("no folder can be made here")
    fit("bert", settings("top"))
    assert "cannot be written (" in capsys.readouterr().out


def test_the_oldest_states_make_room_for_new_ones(place):
    fit("bert", settings("top"))
    (old,) = place.iterdir()
    taken = sum(path.stat().st_size for path in old.iterdir())
    asked = settings("top", precision="bf16").model_copy(update={"cache_gib": taken * 1.2 / 2**30})
    fit("bert", asked)
    assert old not in list(place.iterdir())
    assert len(list(place.iterdir())) == 1


def test_what_a_killed_process_left_is_removed_after_an_hour(place):
    for name in (".key.killed", ".other.writing"):
        (place / name).mkdir(parents=True)
        (place / name / "train").write_bytes(b"part")
    for path in (place / ".key.killed" / "train", place / ".key.killed"):
        os.utime(path, (0, 0))
    fit("bert", settings("top"))
    left = {path.name for path in place.iterdir()}
    assert ".key.killed" not in left
    assert ".other.writing" in left


def test_temporary_states_are_gone_at_the_end(monkeypatch, tmp_path):
    monkeypatch.delenv(CHECKPOINTS, raising=False)
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    fit("bert", settings("top"))
    assert not list(tmp_path.iterdir())


def test_padded_rows_have_no_cache_and_it_is_told(capsys):
    model = family("bert")
    freeze(model, settings("head"))
    with above_the_cut(PaddedClassifier(model), splits(), settings("head"), GROUP, ORIGIN) as (tuned, parts):
        assert isinstance(tuned, PaddedClassifier)
        assert not isinstance(parts["train"], Kept)
    assert "rows that are padded have no cache" in capsys.readouterr().out


def test_with_all_tuned_nothing_is_cached_and_nothing_told(capsys):
    classifier = PackedClassifier(family("bert"))
    with above_the_cut(classifier, splits(), TrainConfig(), GROUP, ORIGIN) as (tuned, _):
        assert tuned is classifier
    assert not capsys.readouterr().out
