"""made_ahead: order, how far it goes ahead, errors in their place, and its end."""

from collections.abc import Iterator
from concurrent.futures import Future
from threading import Event

import pytest

from edge_runtime import made_ahead


def test_the_next_result_is_made_while_the_last_one_is_used() -> None:
    begun = [Event() for _ in range(4)]

    def make(number: int) -> int:
        begun[number].set()
        return number * number

    results = []
    for number, future in enumerate(made_ahead(make, range(4))):
        results.append(future.result())
        assert begun[min(number + 1, 3)].wait(10)  # nobody has asked for it yet
    assert results == [0, 1, 4, 9]


def test_it_reads_no_further_than_it_may() -> None:
    read = []

    def inputs() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    results = made_ahead(str, inputs(), depth=3)
    assert next(results).result() == "0"
    assert read == [0, 1, 2, 3]


def test_an_error_stands_in_its_place() -> None:
    futures: list[Future[float]] = list(made_ahead(lambda number: 1 / number, [1, 0, 2]))
    assert futures[0].result() == 1
    with pytest.raises(ZeroDivisionError):
        futures[1].result()
    assert futures[2].result() == 0.5


def test_who_stops_early_waits_for_one_result_alone() -> None:
    gate, made = Event(), []

    def make(number: int) -> None:
        made.append(number)
        assert gate.wait(10)

    results = made_ahead(make, range(9), depth=5)
    next(results)
    gate.set()
    results.close()  # type: ignore[attr-defined]  it is a generator
    assert len(made) < 9
