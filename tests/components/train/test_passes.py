"""A batch in several passes and in several shares holds what it held, and its gradient is the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.components.train.test_loop import ignore, network, toy
from tuneline.config import TrainConfig
from tuneline.errors import InputError
from tuneline.packing import classifier_for
from tuneline.train.loop import train_loop
from tuneline.train.passes import PassLimit, is_out_of_memory, passes, shares

LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=64)


@given(LENGTHS, st.integers(1, 2000))
def test_passes_hold_every_text_once_in_order_and_keep_to_the_limit(lengths, limit):
    found = passes(range(len(lengths)), lengths, limit)
    assert [index for part in found for index in part] == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in part) <= limit or len(part) == 1 for part in found)


def test_no_more_passes_are_made_than_needed():
    assert passes([3, 1, 2, 0], [5, 5, 5, 5], 10) == [[3, 1], [2, 0]]
    assert passes([0, 1], [5, 5], 100) == [[0, 1]]


@given(LENGTHS, st.integers(1, 8))
def test_shares_hold_every_text_once_and_differ_by_no_more_than_a_text(lengths, size):
    found = shares(range(len(lengths)), lengths, size)
    assert sorted(index for share in found for index in share) == list(range(len(lengths)))
    tokens = [sum(lengths[index] for index in share) for share in found]
    assert max(tokens) - min(tokens) <= max(lengths)
    assert len(lengths) < size or all(found)


def curve(model: nn.Module, pass_tokens: int) -> list[float]:
    losses: list[float] = []
    settings = TrainConfig(
        epochs=2, batch_size=8, learning_rate=1e-3, warmup_share=0, precision="fp32", pass_tokens=pass_tokens
    )
    train_loop(model, toy(40), toy(8), settings, lambda _step, _total, facts: losses.append(facts["loss"]), ignore)
    return losses


def test_several_passes_learn_as_one_does():
    whole = curve(classifier_for(network(spread=0.3)), 8192)
    assert curve(classifier_for(network(spread=0.3)), 20) == pytest.approx(whole, abs=1e-5)
    assert whole[-1] != pytest.approx(whole[0], abs=1e-2)


class Small(nn.Module):
    """A classifier on a device that holds only so many tokens at once, and says so as torch does."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.classifier, self.limit = classifier_for(network(spread=0.3)), limit

    def forward(self, rows: list[list[int]], *rest: object) -> torch.Tensor:
        logits = self.classifier(rows, *rest)
        if sum(map(len, rows)) > self.limit and self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return logits


def test_out_of_memory_halves_what_goes_at_once_and_changes_nothing_else(capsys):
    expected = curve(classifier_for(network(spread=0.3)), 8192)
    assert curve(Small(20), 8192) == pytest.approx(expected, abs=1e-5)
    assert "out of memory: from here on at most" in capsys.readouterr().out


def test_one_text_that_is_too_much_is_told_in_a_line():
    with pytest.raises(InputError, match=r"single text of \d+ tokens; lower it"):
        curve(Small(5), 8192)


def test_one_process_of_several_that_runs_out_of_memory_says_what_to_lower():
    with pytest.raises(InputError, match=r"train\.pass_tokens: out of memory with 64 tokens at once; halve it"):
        PassLimit(64).keeping(lambda: torch.empty(2**60), lambda: None, 100, 10, alone=False)


def test_another_error_is_no_lack_of_memory():
    def attempt() -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        PassLimit(8).keeping(attempt, lambda: None, 8, 2)


def test_torchs_own_lack_of_memory_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
