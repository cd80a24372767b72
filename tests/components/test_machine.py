"""What a process takes of the machine is what it may use of it."""

from __future__ import annotations

import os

import pytest
import torch

from tuneline import machine, threads
from tuneline.machine import threads_each, usable_cores


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({}, None),
    ],
)
def test_a_containers_quota_bounds_the_cores(tmp_path, files, cores):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


def test_a_quota_of_several_cores_is_used_up(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(("processes", "each"), [(1, 6), (2, 3), (4, 1), (9, 1)])
def test_processes_side_by_side_share_the_quota_and_not_the_machine(tmp_path, monkeypatch, processes, each):
    monkeypatch.setattr(machine, "usable_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_each(processes) == each
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads_each(processes) == 5


def test_torch_takes_no_more_threads_than_the_quota_and_no_more_than_it_had(monkeypatch):
    had = torch.get_num_threads()
    try:
        monkeypatch.setattr(threads, "usable_cores", lambda: 1)
        threads.within_quota()
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(threads, "usable_cores", lambda: 64)
        threads.within_quota()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(had)
