"""Two pictures at once, a core each, against one after the other on two cores: what serves more pictures a second?"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.edge.driver import Worker
from benchmarks.encode import seconds


def measure(name: str, cache: Path, depth: int, size: str, threads: int, rounds: int) -> dict[str, Any]:
    """Pictures a second of one process with `threads` threads, of as many processes with one thread, and their ratio.

    Both take turns, and figures are medians.

    Raises:
        ChildProcessError: a process died.
    """
    one, *many = (Worker(name, cache, depth, count) for count in (threads, *[1] * threads))
    try:
        with ThreadPoolExecutor(threads) as pool:

            def together() -> None:
                for answer in pool.map(lambda worker: worker.run(size), many):
                    if "error" in answer:
                        raise ChildProcessError(answer["error"])

            def in_turn() -> None:
                for _ in many:
                    if "error" in (answer := one.run(size)):
                        raise ChildProcessError(answer["error"])

            pairs = [(seconds(in_turn), seconds(together)) for _ in range(1 + rounds)][1:]  # the first warms up
    finally:
        for worker in (one, *many):
            worker.close()
    turn_s, together_s = (threads / median(side) for side in zip(*pairs, strict=True))
    return {
        "engine": name,
        "size": size,
        "one_process_per_s": round(turn_s, 3),
        "process_per_core_per_s": round(together_s, 3),
        "ratio": round(together_s / turn_s, 3),
        "num_rounds": rounds,
    }
