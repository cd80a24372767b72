"""A request's way: a body in, the version's answer out. HTTP around it is http.py's."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuneline.errors import InputError
from tuneline.progress import say
from tuneline.serve.batching import Batcher
from tuneline.serve.bodies import Form, read
from tuneline.serve.files import check_precision
from tuneline.serve.meters import Meters
from tuneline.serve.versions import Served, Versions

if TYPE_CHECKING:
    import numpy as np

_FORGET_SECONDS = 1


@dataclass(frozen=True)
class Options:
    """How to serve.

    Attributes:
        host: address to listen at.
        port: of it; 0 takes a free one.
        precision: fp32, exact, or bf16, quicker where the hardware has it.
        poll_seconds: between two looks at the alias.
        max_texts: texts in one request.
        max_bytes: of a request's body.
        max_waiting: texts that may wait for an answer; beyond it requests get 503.
        pass_tokens: tokens in one pass of the network.
        timeout_seconds: a request that is not answered within them gets 503.
        linger_seconds: after SIGTERM requests are still taken so long, while /ready says 503.
        drain_seconds: most seconds that requests under way get to end, after that.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    precision: str = "fp32"
    poll_seconds: float = 5.0
    max_texts: int = 1000
    max_bytes: int = 1_000_000
    max_waiting: int = 2000
    pass_tokens: int = 2048
    timeout_seconds: float = 30.0
    linger_seconds: float = 0.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port: {self.port} given; allowed: 0 to 65535")
        for name in ("poll_seconds", "max_texts", "max_bytes", "max_waiting", "pass_tokens", "timeout_seconds"):
            if not getattr(self, name) > 0:
                raise InputError(f"--{name.replace('_', '-')}: {getattr(self, name)} given; more than 0 is needed")
        for name in ("linger_seconds", "drain_seconds"):
            if not getattr(self, name) >= 0:
                raise InputError(f"--{name.replace('_', '-')}: {getattr(self, name)} given; 0 or more is needed")


@dataclass
class Service:
    """What answers, and what it is told of.

    Attributes:
        options: how.
        served: the version that new requests go to; it is only read and replaced in the event loop.
        meters: what is counted.
        draining: whether the end is near.
        old: batchers that may still have requests to answer.
    """

    options: Options
    served: Served
    meters: Meters
    draining: bool = False
    old: list[Batcher] = field(default_factory=list)

    @classmethod
    def open(cls, versions: Versions, options: Options, meters: Meters) -> Service:
        """Load the first version.

        Raises:
            InputError: there is none, or it is not what was registered.
        """
        served = versions.load(versions.find())
        meters.serves(served.name, served.version, moved=False)
        return cls(options, served, meters)

    def use(self, served: Served) -> None:
        """Send new requests to another version; the old one answers what it has taken. In the event loop only."""
        before, self.served = self.served, served
        before.batcher.close()
        self.old.append(before.batcher)
        self._forget()
        self.meters.serves(served.name, served.version, moved=True)
        say(f"[serve] {served.name}/{served.version} answers in the place of {before.version}")

    def _forget(self) -> None:
        """Let go of the versions that have answered all, and of their memory."""
        self.old = [batcher for batcher in self.old if batcher.alive]
        if self.old:
            asyncio.get_running_loop().call_later(_FORGET_SECONDS, self._forget)

    async def ask(self, raw: bytes, form: Form) -> tuple[Served, np.ndarray]:
        """The probabilities for a body's texts, and the version that gave them.

        Raises:
            RefusedError: it is not such a body.
            FullError: too much waits.
            TimeoutError: it took too long.
        """
        served = self.served  # nothing is awaited until it has taken the question
        question = read(raw, form, served.pairs, self.options.max_texts)
        answer = asyncio.wrap_future(served.batcher.submit(question))
        async with asyncio.timeout(self.options.timeout_seconds):
            return served, await answer

    def told(self, served: Served, probabilities: np.ndarray) -> tuple[list[str], list[float]]:
        """The label of each text, by the model's own decision (empty: it abstains), which is counted, and its score."""
        labels, scores = served.batcher.classifier.told(probabilities)
        self.meters.labelled(served.version, labels)
        return labels, scores

    def close(self, seconds: float) -> None:
        """Answer what was taken, and end the threads."""
        until = time.monotonic() + seconds
        for batcher in [*self.old, self.served.batcher]:
            batcher.close()
            batcher.join(max(0.0, until - time.monotonic()))


def starter(options: Options, meters: Meters) -> Any:
    """What makes the batcher of a classifier."""
    return lambda classifier: Batcher(classifier, options.pass_tokens, options.max_waiting, meters)
