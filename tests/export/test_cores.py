"""Passes that run beside each other: their answers in order, and an error that ends them."""

import threading
import time

import pytest
import torch

from export.gate import cores
from export.gate.cores import each_on_a_core, num_cores, torch_on_one_core


def test_answers_keep_their_order_and_the_dearest_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "MAX_AT_ONCE", 1)
    begun, told = list[int](), list[tuple[int, str]]()

    def work(number: int) -> str:
        begun.append(number)
        return f"pass {number}"

    found = each_on_a_core(work, [1.0, 3.0, 2.0], lambda number, answer: told.append((number, answer)))
    assert found == ["pass 0", "pass 1", "pass 2"]
    assert begun == [1, 2, 0]
    assert sorted(told) == [(0, "pass 0"), (1, "pass 1"), (2, "pass 2")]


@pytest.mark.skipif(num_cores() < 2, reason="one core is allowed here")
def test_two_cores_work_at_once() -> None:
    meeting = threading.Barrier(2)
    assert each_on_a_core(lambda _: meeting.wait(30) >= 0, [1.0, 1.0], lambda *_: None) == [True, True]


def test_an_error_ends_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "MAX_AT_ONCE", 1)
    begun = list[int]()

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise RuntimeError("pass 0")
        time.sleep(0.1)  # five seconds for all of them, without an end before

    with pytest.raises(RuntimeError, match="pass 0"):
        each_on_a_core(work, [5.0] + [1.0] * 50, lambda *_: None)
    assert len(begun) < 50


def test_torch_gets_its_threads_back() -> None:
    def fail() -> None:
        with torch_on_one_core():
            assert torch.get_num_threads() == 1
            raise RuntimeError("inside")

    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)  # as tests/export/conftest.py has it
