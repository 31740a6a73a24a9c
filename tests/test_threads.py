"""The number of CPU threads follows what other programs leave: on a simulated machine, and with a real busy process."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle

import pytest
import torch

from rlvr_utils.models import load_model
from rlvr_utils.profiles import get_profile
from rlvr_utils.system import threads
from rlvr_utils.system.threads import INTERVAL, Load, Threads, cores, read_load


class Machine:
    """A machine with fair scheduling: runnable threads share the cores, and a thread that gets no core waits.

    Args:
        n: cores.
        busy: how many other threads want to run, as a function of the time in seconds.
        host_idle: idle cores that the operating system reports although this process may not use them.
    """

    def __init__(self, n: int, busy=lambda time: 0, host_idle: int = 0):
        self.n, self.busy, self.host_idle = n, busy, host_idle
        self.time = self.waited = self.idle = self.used = 0.0
        self.ours, self.said, self.changes = n, [], 0
        self.threads = Threads(
            n,
            read=lambda: Load(self.waited, self.idle, self.used),
            clock=lambda: self.time,
            apply=self.apply,
            say=self.said.append,
        )

    def apply(self, n: int) -> None:
        self.ours, self.changes = n, self.changes + 1

    def run(self, seconds: float) -> list[int]:
        """Number of threads at each interval."""
        history = []
        for _ in range(round(seconds / INTERVAL)):
            others = self.busy(self.time)
            runnable = self.ours + others
            self.time += INTERVAL * 1.001
            self.waited += INTERVAL * max(0.0, 1 - self.n / runnable) * self.ours
            self.idle += INTERVAL * (max(0.0, self.n - runnable) + self.host_idle)
            self.used += INTERVAL * others * min(1.0, self.n / runnable)
            self.threads.adapt()
            history.append(self.ours)
        return history


@pytest.mark.parametrize("n", [2, 4, 8, 64])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 3.0])
def test_it_takes_the_cores_that_others_leave_and_at_least_one(n, share):
    busy = max(1, round(share * n)) if share else 0
    machine = Machine(n, lambda time: busy)
    history = machine.run(60)
    left = max(1, n - busy)
    # Fair scheduling also gives our threads more than what is left; one thread above it waits less than the threshold.
    assert left <= history[-1] <= left + (busy > 0) * max(1, n // 8)
    assert len(machine.said) == (history[-1] < n)


@pytest.mark.parametrize("n", [2, 8])
def test_threads_come_back_when_the_other_program_ends(n):
    machine = Machine(n, lambda time: n if 10 < time < 40 else 0)
    history = machine.run(90)
    assert set(history[:90]) == {n}
    assert history[350] <= max(1, n // 2)
    assert history[-1] == n
    assert len(machine.said) == 1  # told once, however often it changes


def test_idle_cores_that_cannot_be_used_cost_fewer_and_fewer_attempts():
    """A container with a quota sees idle cores of its host: each attempt to use them costs a slow moment."""
    machine = Machine(2, lambda time: 1, host_idle=16)
    machine.run(600)
    first = machine.changes
    machine.run(600)
    assert first <= 40
    assert machine.changes - first <= 2 * 600 / threads.PATIENCE[1] + 2


@pytest.mark.parametrize("n", [2, 8])
def test_our_own_threads_that_wait_for_each_other_take_no_thread_away(n):
    """Modules that load and short-lived threads of libraries: on a quiet machine up to 0.9 threads were seen to wait."""
    machine = Machine(n)
    for _ in range(100):
        machine.waited += 0.9 * INTERVAL
        machine.run(INTERVAL)
    assert machine.changes == 0
    assert not machine.said


def test_a_container_that_grants_less_than_its_cores_is_noticed_without_other_programs():
    machine = Machine(16)
    for _ in range(100):
        machine.waited += max(0, machine.ours - 2) * INTERVAL
        machine.run(INTERVAL)
    assert machine.ours <= 3


def test_one_thread_is_left_alone():
    machine = Machine(1, lambda time: 5)
    assert set(machine.run(10)) == {1}
    assert not machine.said


def test_the_load_of_this_machine_can_be_read_with_and_without_the_waits_that_linux_counts(monkeypatch):
    with_waits = read_load()
    assert with_waits.waited >= 0
    assert with_waits.idle >= 0
    monkeypatch.setattr(threads, "thread_waits", lambda: [])
    first = read_load()
    sum(i * i for i in range(300_000))
    second = read_load()
    assert second.idle >= first.idle
    assert cores()


@pytest.fixture
def own_number_of_threads():
    """Leaves PyTorch's number of threads as it was."""
    before = torch.get_num_threads()
    yield
    threads._threads, threads._before_fixed = None, None
    torch.set_num_threads(before)


def spin(parent: int) -> None:
    while os.getppid() == parent:
        pass


def test_a_real_model_beside_busy_processes_goes_on_with_fewer_threads(own_number_of_threads):
    threads._threads = None
    torch.set_num_threads(len(cores()) + 1)  # more threads than cores wait for each other even on an idle machine
    model = load_model(get_profile("mini"))
    others = [multiprocessing.get_context("spawn").Process(target=spin, args=(os.getpid(),), daemon=True) for _ in range(2)]
    try:
        for other in others:
            other.start()
        with torch.no_grad():
            for _ in range(400):
                model(input_ids=torch.ones(8, 64, dtype=torch.long))
                if torch.get_num_threads() == 1:
                    break
    finally:
        for other in others:
            other.kill()
    assert threads.thread_record()["fewest_threads"] < len(cores()) + 1


def test_a_fixed_number_of_threads_stays_and_does_not_outlive_its_run(own_number_of_threads):
    threads._threads = None
    before = torch.get_num_threads()
    model = load_model(get_profile("mini", cpu_threads=1))
    assert torch.get_num_threads() == 1
    threads.adapt()
    assert threads.thread_record() == {"threads": 1, "fewest_threads": 1}
    assert not model.get_input_embeddings()._forward_pre_hooks
    load_model(get_profile("mini"))
    assert torch.get_num_threads() == before


def test_the_adapted_model_can_be_copied_and_pickled(own_number_of_threads):
    model = load_model(get_profile("mini"))
    copy.deepcopy(model)(input_ids=torch.ones(1, 4, dtype=torch.long))
    assert pickle.dumps(model)
