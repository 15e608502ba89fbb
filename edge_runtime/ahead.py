"""Work on the next input while the program still uses the last result."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def made_ahead(make: Callable[[T], R], inputs: Iterable[T], depth: int = 1) -> Iterator[Future[R]]:
    """Yield the future of make(input) for each input, in order; a thread of its own makes up to `depth` more meanwhile.

    `made_ahead(pipeline.request, conversations)` encodes the next picture while the answer to the last one streams:
    the tower runs on this device, the language model on the server, and neither waits for the other.

    Args:
        make: what the thread calls, one input at a time.
        inputs: the calling thread reads them, `depth` further than the future that it holds. They may be endless.
        depth: how many results may lie ready; each holds its memory.

    Yields:
        a future; its result() waits, and raises what `make` raised for this input. The other inputs go on.
    """
    waiting = deque[Future[R]]()
    with ThreadPoolExecutor(1, "made-ahead") as thread:
        try:
            for one in inputs:
                waiting.append(thread.submit(make, one))
                if len(waiting) > depth:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()
