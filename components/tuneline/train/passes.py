"""How a batch goes through the model: shared out among the processes, and in as many passes as memory wants.

Neither changes the result but for rounding: the loss is a mean over the batch, and gradients add up. Where memory runs
out, half as many tokens go at once from then on, and training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from tuneline.errors import InputError
from tuneline.progress import say

T = TypeVar("T")


def shares(batch: Sequence[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """The batch's texts for each process, as near to the same number of tokens as the longest first brings them.

    Graham (1969): the next longest goes to whoever has least. A process gets nothing only of a batch with fewer texts.
    """
    found: list[list[int]] = [[] for _ in range(size)]
    tokens = [0] * size
    for index in sorted(batch, key=lambda index: (-lengths[index], index)):
        least = min(range(size), key=lambda rank: (tokens[rank], len(found[rank]), rank))
        found[least].append(index)
        tokens[least] += lengths[index]
    return found


def passes(share: Sequence[int], lengths: Sequence[int], limit: int) -> list[list[int]]:
    """The texts in groups that hold at most `limit` tokens each, in their order; a longer text goes alone."""
    found: list[list[int]] = []
    tokens = limit + 1
    for index in share:
        tokens += lengths[index]
        if tokens > limit:
            found.append([])
            tokens = lengths[index]
        found[-1].append(index)
    return found


class PassLimit:
    """How many tokens go through the model at once, halved when memory runs out.

    Args:
        tokens: the limit to begin with.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def keeping(
        self, attempt: Callable[[], T], forget: Callable[[], None], tokens: int, longest: int, alone: bool = True
    ) -> T:
        """What `attempt` gives, tried again with half the limit as often as it runs out of memory.

        Args:
            attempt: a try that reads `self.tokens`.
            forget: frees what a failed try has left behind.
            tokens: what the try has to do in all.
            longest: tokens of its longest text, which cannot be parted.
            alone: whether this process trains alone; one that tried again would leave others waiting.

        Raises:
            InputError: one text alone is too much, or a process of several has run out of memory.
        """
        while True:
            try:
                return attempt()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            forget()
            if not alone:
                raise InputError(
                    f"train.pass_tokens: out of memory with {min(self.tokens, tokens)} tokens at once; halve it (the "
                    f"batches stay the same)"
                )
            if min(self.tokens, tokens) <= longest:
                raise InputError(
                    f"model.max_length: out of memory with a single text of {longest} tokens; lower it, or take a "
                    f"smaller model.name or more memory"
                )
            self.tokens = max(longest, min(self.tokens, tokens) // 2)
            say(f"[train] out of memory: from here on at most {self.tokens} tokens at once, with the same batches")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch raised it for want of memory; on a CPU it has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
