"""What waits for a server: sent in order and once, kept while it is away, insisted on at the end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.conftest import until
from tuneline.outbox import Outbox


class Server:
    """Takes batches, refuses while it is away, hangs while it is told to."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.sizes: list[int] = []
        self.attempts = 0
        self.away = False
        self.free = threading.Event()
        self.free.set()

    def take(self, batch: list[Any]) -> None:
        self.attempts += 1
        assert self.free.wait(10)
        if self.away:
            raise ConnectionError("away")
        self.got += batch
        self.sizes.append(len(batch))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def outbox(server: Server, told: list[str]) -> Outbox:
    return Outbox(server.take, lambda error: told.append(str(error)), full=10, seconds=0.02)


def test_a_flush_sends_all_in_order_and_in_batches_that_mlflow_takes(server: Server, outbox: Outbox) -> None:
    for number in range(2500):
        outbox.put([number])
    outbox.flush()
    outbox.flush()
    assert server.got == list(range(2500))
    assert server.sizes == [1000, 1000, 500]


def test_in_its_context_it_sends_by_itself(server: Server, outbox: Outbox) -> None:
    with outbox:
        outbox.put([1])
        until(lambda: server.got == [1])
        outbox.put(list(range(2, 30)))
        until(lambda: server.got == list(range(1, 30)))


def test_what_a_server_did_not_take_is_kept_told_once_and_sent_when_it_is_back(
    server: Server, outbox: Outbox, told: list[str]
) -> None:
    server.away = True
    with outbox:
        for number in range(100):
            outbox.put([number])
        until(lambda: server.attempts >= 3)
        assert told == ["away"]
        server.away = False
        until(lambda: len(server.got) == 100)
        until(lambda: told == ["away", "None"])
    assert server.got == list(range(100))


def test_taking_items_waits_for_no_server(server: Server, outbox: Outbox, told: list[str]) -> None:
    server.free.clear()
    with outbox:
        outbox.put(list(range(10)))
        until(lambda: server.attempts == 1)
        outbox.put(list(range(10, 20)))
        assert told == []  # the server still holds its one attempt, and has not given it up
        server.free.set()
        outbox.flush()
    assert server.got == list(range(20))


def test_the_end_insists_and_what_was_not_sent_is_kept(server: Server, outbox: Outbox) -> None:
    server.away = True
    outbox.put([1, 2])
    with pytest.raises(ConnectionError, match="away"):
        outbox.flush()
    server.away = False
    outbox.flush()
    assert server.got == [1, 2]


def test_a_last_word_does_not_wait_for_an_attempt_that_hangs(server: Server, outbox: Outbox) -> None:
    server.free.clear()
    with outbox:
        outbox.put(list(range(10)))
        until(lambda: server.attempts == 1)
        with pytest.raises(TimeoutError):
            outbox.flush(patience=0.05)
        server.free.set()
