"""Threads of torch's arithmetic within what the process may use."""

from __future__ import annotations

from tuneline.machine import usable_cores


def within_quota() -> None:
    """Let torch have no more threads than this process may use cores.

    Torch counts the machine's cores and knows nothing of a container's quota: in a pod of four cores on a node of
    sixty-four its threads would wait for each other.
    """
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
