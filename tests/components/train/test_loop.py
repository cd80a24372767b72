"""The training loop against its arithmetic written out, and against a task that it must learn."""

from __future__ import annotations

import gc
import random

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification

from tuneline.config import TrainConfig
from tuneline.packing import classifier_for
from tuneline.train.batches import epoch_batches
from tuneline.train.loop import Examples, Group, measure, optimizer_for, rate_at, train_loop
from tuneline.train.passes import PassLimit


def network(seed: int = 0, dropout: float = 0.0, spread: float = 0.02) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels=2, pad_token_id=0, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0, initializer_range=spread,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def toy(count: int, seed: int = 0) -> Examples:
    """Rows of 4 to 12 tokens; the label tells which of two tokens stands among them."""
    draw = random.Random(seed)
    labels = [number % 2 for number in range(count)]
    rows = []
    for label in labels:
        row = [draw.randrange(6, 20) for _ in range(draw.randrange(1, 10))]
        row.insert(draw.randrange(len(row) + 1), 4 + label)
        rows.append([2, *row, 3])
    return Examples(rows, labels)


def ignore(*_: object) -> None:
    """Hears and says nothing."""


def fit(seed: int, dropout: float = 0.1) -> dict[str, torch.Tensor]:
    model = network(seed, dropout)
    settings = TrainConfig(epochs=2, batch_size=8, learning_rate=1e-3, seed=seed)
    train_loop(classifier_for(model), toy(40), toy(8), settings, ignore, ignore)
    return model.state_dict()


def test_an_example_is_as_long_as_its_tokens():
    assert Examples([[2, 3], [2, 5, 3]], [0, 1]).lengths == [2, 3]


@pytest.mark.parametrize(
    ("total", "warmup", "rates"),
    [
        (4, 0, [1.0, 0.75, 0.5, 0.25]),
        (6, 2, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]),
        (5, 4, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (1, 0, [1.0]),
        (2, 1, [0.0, 1.0]),
    ],
)
def test_the_rate_rises_in_a_line_and_falls_in_a_line(total, warmup, rates):
    assert [rate_at(step, total, warmup) for step in range(total)] == pytest.approx(rates)


def test_matrices_are_decayed_and_vectors_are_not():
    model = network()
    decayed, plain = optimizer_for(model, TrainConfig(weight_decay=0.25, learning_rate=1e-3)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.25, 0.0)
    assert {weight.ndim for weight in decayed["params"]} == {2}
    assert {weight.ndim for weight in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_decay_shrinks_matrices_by_rate_times_decay_where_there_is_no_gradient():
    model = network()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    optimizer = optimizer_for(model, TrainConfig(weight_decay=0.25, learning_rate=0.1))
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, before[name] * (1 - 0.1 * 0.25) if weight.ndim == 2 else before[name])


def test_a_frozen_weight_is_left_alone():
    model = network()
    model.bert.embeddings.requires_grad_(False)
    before = model.bert.embeddings.word_embeddings.weight.clone()
    train_loop(classifier_for(model), toy(16), toy(4), TrainConfig(epochs=1, learning_rate=0.1), ignore, ignore)
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, before)


def test_three_steps_are_adamw_on_the_mean_cross_entropy_with_clipped_gradients():
    settings = TrainConfig(
        epochs=1, batch_size=4, learning_rate=1e-2, warmup_share=0.34, weight_decay=0.1, precision="fp32", seed=5
    )
    data = toy(11)
    ours, reference = (network(spread=0.3).double() for _ in range(2))  # in fp32 AdamW blows rounding errors up
    told: list[tuple[float, float]] = []

    def note(_step: int, _total: int, facts: dict[str, float]) -> None:
        told.append((facts["loss"], facts["learning_rate"]))

    train_loop(classifier_for(ours), data, toy(4), settings, note, ignore)

    matrices = [weight for weight in reference.parameters() if weight.ndim == 2]
    vectors = [weight for weight in reference.parameters() if weight.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}])
    losses, norms, rates = [], [], [0.0, 5e-3, 1e-2]
    reference.train()
    for batch, rate in zip(epoch_batches(data.lengths, 4, 5, 0), rates, strict=True):
        rows = [torch.tensor(data.input_ids[index]) for index in batch]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        loss = cross_entropy(
            reference(input_ids=ids, attention_mask=(ids > 0).long()).logits,
            torch.tensor([data.labels[index] for index in batch]),
        )
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0).item())
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())

    assert max(norms) > 1.5  # so that clipping is seen
    assert [loss for loss, _ in told] == pytest.approx(losses, abs=1e-5)
    assert [rate for _, rate in told] == pytest.approx(rates)
    for weight, wanted in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(weight, wanted, atol=2e-5, rtol=1e-4)


def test_the_loss_falls_and_the_task_is_learned():
    losses: list[float] = []
    epochs: list[dict[str, float]] = []
    settings = TrainConfig(epochs=8, batch_size=16, learning_rate=1e-2)
    train_loop(
        classifier_for(network(dropout=0.1)), toy(256), toy(64, seed=1), settings,
        lambda _step, _total, facts: losses.append(facts["loss"]), lambda _epoch, facts: epochs.append(facts),
    )  # fmt: skip
    assert sum(losses[-16:]) < 0.5 * sum(losses[:16])
    assert epochs[-1]["validation_loss"] < epochs[0]["validation_loss"]
    assert epochs[-1]["validation_accuracy"] >= 0.95


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = fit(0), fit(0), fit(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("query.weight"))


def test_the_seed_orders_the_texts_even_where_the_initial_weights_are_the_same():
    models = [network(), network()]
    for seed, model in enumerate(models):
        settings = TrainConfig(epochs=1, batch_size=4, learning_rate=1e-3, seed=seed)
        train_loop(classifier_for(model), toy(40), toy(8), settings, ignore, ignore)
    assert not torch.equal(models[0].classifier.weight, models[1].classifier.weight)


@pytest.mark.parametrize(("rows", "epochs", "steps"), [(10, 3, 3), (8, 1, 2), (3, 2, 1), (1, 2, 1)])
def test_every_step_and_every_epoch_is_told_once(rows, epochs, steps):
    told: list[tuple[int, int]] = []
    ends: list[int] = []
    settings = TrainConfig(epochs=epochs, batch_size=4)
    totals = train_loop(
        classifier_for(network()), toy(rows), toy(4), settings, lambda step, total, _: told.append((step, total)),
        lambda epoch, _: ends.append(epoch),
    )  # fmt: skip
    assert told == [(step, steps * epochs) for step in range(1, steps * epochs + 1)]
    assert ends == list(range(1, epochs + 1))
    assert set(totals) == {
        "train_seconds", "train_examples_per_second", "train_tokens_per_second", "validation_loss",
        "validation_accuracy",
        "validation_macro_f1",
        "train_steps", "train_data_seconds", "train_checkpoint_seconds", "train_validation_seconds",
        "train_peak_memory_mb", "train_padding_share", "train_mfu", "train_peak_tflops",
    }  # fmt: skip


def test_speeds_are_of_the_same_time():
    data = toy(24)
    totals = train_loop(classifier_for(network()), data, toy(4), TrainConfig(epochs=2, batch_size=8), ignore, ignore)
    assert totals["train_examples_per_second"] * totals["train_seconds"] == pytest.approx(48)
    assert totals["train_tokens_per_second"] * totals["train_seconds"] == pytest.approx(2 * sum(data.lengths))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_measuring_is_exact_whatever_the_batches(batch_size):
    model, data = network(), toy(21)
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(input_ids=torch.tensor([row])).logits for row in data.input_ids])
    labels = torch.tensor(data.labels)
    found = measure(classifier_for(model), data, batch_size, Group())
    assert found["validation_loss"] == pytest.approx(cross_entropy(logits, labels).item(), abs=1e-5)
    assert found["validation_accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_dropout_is_on_in_every_training_step_and_off_in_every_measurement():
    model, modes = network().eval(), []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    train_loop(classifier_for(model), toy(8), toy(4), TrainConfig(epochs=2, batch_size=4), ignore, ignore)
    assert modes == [True, True, False] * 2


def test_measuring_switches_dropout_off():
    model, data = network(dropout=0.5), toy(16)
    model.train()
    assert measure(classifier_for(model), data, 4, Group()) == measure(classifier_for(model), data, 4, Group())


def test_measuring_takes_no_more_tokens_at_once_than_training_does():
    model, data, seen = network(), toy(16), list[int]()
    classifier = classifier_for(model)
    classifier.register_forward_pre_hook(lambda _, inputs: seen.append(sum(map(len, inputs[0]))))
    at_once = measure(classifier, data, 8, Group())
    assert max(seen) > 40
    seen.clear()
    in_passes = measure(classifier, data, 8, Group(), limit=PassLimit(40))
    assert max(seen) <= 40
    assert in_passes == pytest.approx(at_once)


def test_of_all_epochs_answers_only_the_last_are_held():
    held: list[int] = []

    def on_epoch(_epoch: int, _facts: object) -> None:
        found = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
        held.append(sum(tensor.shape == (37, 2) and tensor.dtype == torch.float64 for tensor in found))

    settings = TrainConfig(epochs=4, batch_size=8, learning_rate=1e-3)
    train_loop(classifier_for(network()), toy(16), toy(37), settings, ignore, on_epoch)
    assert held == [1] * 4


def alone(model: BertForSequenceClassification, row: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.tensor([row])).logits[0].double()


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_a_text_in_windows_is_measured_by_the_mean_of_its_windows_probabilities(batch_size):
    model, rows = network(spread=0.5), toy(12).input_ids
    by_hand = network(spread=0.5)
    windows, of_texts = [3, 1, 4, 2, 2], [0, 1, 1, 0, 1]
    labels = [label for label, count in zip(of_texts, windows, strict=True) for _ in range(count)]
    found = measure(classifier_for(model), Examples(rows, labels, windows=windows), batch_size, Group())
    parts = torch.stack([alone(by_hand, row).softmax(0) for row in rows]).split(windows)
    chances = torch.stack([part.mean(0) for part in parts])
    right = chances[torch.arange(5), torch.tensor(of_texts)]
    assert found["validation_loss"] == pytest.approx(float(-right.log().mean()), abs=1e-5)
    accuracy = (chances.argmax(1) == torch.tensor(of_texts)).double().mean()
    assert found["validation_accuracy"] == pytest.approx(float(accuracy))


def test_texts_of_one_window_each_are_measured_as_texts():
    model, texts = network(spread=0.5), toy(20)
    plain = measure(classifier_for(model), texts, 4, Group())
    single = Examples(texts.input_ids, texts.labels, windows=[1] * 20)
    assert measure(classifier_for(model), single, 4, Group()) == pytest.approx(plain, abs=1e-6)


def first_loss(examples: Examples) -> float:
    losses: list[float] = []
    settings = TrainConfig(epochs=1, batch_size=len(examples.labels), learning_rate=1e-3, precision="fp32")
    model = classifier_for(network(spread=0.5))
    train_loop(model, examples, toy(4), settings, lambda _s, _t, facts: losses.append(facts["loss"]), ignore)
    return losses[0]


def test_a_rows_loss_counts_as_its_weight_says():
    rows, labels, weights = toy(6).input_ids, [0, 1, 1, 0, 1, 0], [2.0, 0.5, 0.5, 1.0, 0.0, 2.0]
    model = network(spread=0.5)
    losses = [
        float(cross_entropy(alone(model, row)[None], torch.tensor([at]))) for row, at in zip(rows, labels, strict=True)
    ]
    wanted = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / 6
    assert first_loss(Examples(rows, labels, weights=weights)) == pytest.approx(wanted, abs=1e-5)


def test_weights_of_one_change_nothing():
    plain = toy(16)
    weighted = Examples(plain.input_ids, plain.labels, weights=[1.0] * 16)
    assert first_loss(weighted) == pytest.approx(first_loss(plain), abs=1e-6)


def test_the_second_text_of_a_pair_reaches_the_model():
    rows, labels = toy(8).input_ids, [0, 1] * 4
    assert first_loss(Examples(rows, labels, [2] * 8)) != pytest.approx(first_loss(Examples(rows, labels)), abs=1e-3)
