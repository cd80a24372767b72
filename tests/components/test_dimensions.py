"""What sweep.space may hold: the rest is refused in one line that says what may."""

from __future__ import annotations

import pytest

from tests.components.test_config import refusal


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("{model.max_length: {low: 16, high: 64}}", "model.max_length: a range given; give a list, because each value"),
        ("{train.epochs: {low: 1}}", "train.epochs: a range holds low, high and perhaps log; low given"),
        ("{train.epochs: {low: 1, high: 2, step: 1}}", "train.epochs: a range holds low, high and perhaps log; low, h"),
        ("{train.epochs: {low: 2, high: 2}}", "train.epochs: low 2 and high 2 given; two numbers, the lower one first"),
        ("{train.epochs: {low: a, high: 2}}", "train.epochs: low 'a' and high 2 given; two numbers, the lower one fi"),
        ("{train.warmup_share: {low: 0, high: 0.2, log: true}}", "train.warmup_share: log True given; true or false,"),
        ("{train.epochs: {low: 1, high: 2, log: 1}}", "train.epochs: log 1 given; true or false, and true only with l"),
        ("{train.decision: [{abstain_below: 0.5}]}", "train.decision: {'abstain_below': 0.5} given; single values can"),
        ("{train.epochs: [0]}", "train.epochs: 0 given; "),
        ("{train.epochs: {low: 2.5, high: 8}}", "train.epochs: 2.5 given; input should be a valid integer"),
        ("{train.epochs: [2, 3.5]}", "train.epochs: 3.5 given; input should be a valid integer"),
        ("{train.learning_rate: [1e-5, few]}", "train.learning_rate: 'few' given; input should be a valid number"),
        ("{train.epochs: []}", "train.epochs: [] given; give a list of choices, or a range such as"),
        ("{balance: [none, all]}", "balance: 'all' given; allowed: none, class_weights"),
        ("{train.seed: [1, 2]}", "train.seed is not searched: finalists are repeated over seeds"),
        ("{train.epoch: [1, 2]}", "train.epoch: unknown key; did you mean train.epochs?"),
    ],
)
def test_a_space_that_cannot_be_searched_is_told_with_what_can(tmp_path, space, told):
    message = refusal(tmp_path, f"data: {{train: a.csv}}\nsweep: {{space: {space}}}")
    assert message.startswith(f"sweep.space: {told}")
