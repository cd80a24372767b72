"""A checkpoint's embeddings of prepared texts, the mean over a text's tokens, and how long one text takes it.

Runs in a process of its own, as a trial does.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuneline.artifacts import PreparedData, read_split
from tuneline.inputs import Inputs, of_table
from tuneline.packing import pad, tells_texts_apart
from tuneline.search.child import answer
from tuneline.search.data import first_rows
from tuneline.search.embed_job import Asked, Facts
from tuneline.train.train import load_network

BATCH = 32
TIMED = 40
WARM_UP = 3


def main(pipe: Connection, asked: Asked) -> None:
    """The process: sends how it ended, and a value."""
    torch.set_num_threads(asked.threads)
    answer(pipe, lambda: _embed_all(asked), asked.log)


def _embed_all(asked: Asked) -> Facts:
    data = Path(asked.data)
    network = load_network(asked.model, PreparedData.load(data).labels).base_model.eval()
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    started = time.monotonic()
    train = read_split(data, "train")
    tables = {"train": train.take(first_rows(train, asked.rows)), "validation": read_split(data, "validation")}
    found: dict[str, Any] = {}
    for name, table in tables.items():
        found[name] = embed(network, of_table(table))
        found[f"{name}_labels"] = table.column("label").to_numpy()
    seconds = time.monotonic() - started
    np.savez(asked.out, **found)
    parameters = sum(weight.numel() for weight in network.parameters())
    return Facts(parameters, _latency(network, of_table(tables["validation"])), seconds)


@torch.inference_mode()
def embed(network: Any, inputs: Inputs) -> np.ndarray:
    """Embeddings, fp32 [texts, width]."""
    rows, found = inputs.rows, []
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for at in range(0, len(order), BATCH):
        found.append(_forward(network, inputs, order[at : at + BATCH]))
    together = np.concatenate(found)
    back = np.empty_like(together)
    back[order] = together
    return inputs.mean(back)


def _forward(network: Any, inputs: Inputs, batch: list[int]) -> np.ndarray:
    pair_at = [inputs.pair_at[index] for index in batch] if inputs.pair_at and tells_texts_apart(network) else None
    padded = pad([inputs.rows[index] for index in batch], network.config.pad_token_id or 0, pair_at)
    states = network(**{name: value.to(network.device) for name, value in padded.items()}).last_hidden_state
    mask = padded["attention_mask"].to(states)[:, :, None]
    return ((states * mask).sum(1) / mask.sum(1)).float().cpu().numpy()


@torch.inference_mode()
def _latency(network: Any, inputs: Inputs) -> float:
    taken = []
    for index in range(min(WARM_UP + TIMED, len(inputs.rows))):
        started = time.perf_counter()
        _forward(network, inputs, [index])
        taken.append(time.perf_counter() - started)
    return float(1000 * np.median(taken[min(WARM_UP, len(taken) - 1) :]))
