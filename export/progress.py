"""Shows how far a long command is: its stage, the share of the stage that is done, the time it took, and lines that stay.

It foretells no time. Stages use a machine differently (a disk, one core, all cores), and so do small and large packs of
one stage: a speed so far promised four times what an export took. Costs have one unit, floating point operations.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

WIDTH = 24  # characters of the bar
LOG_SECONDS = 5.0  # between two lines, where the file is no terminal and has no bar

READ_FLOP, WRITE_FLOP = 100, 400  # the operations that a byte counts as

Done = Callable[[float, str], None]  # takes the cost of the step that just ended, and its name


def quiet(_cost: float, _name: str) -> None:
    """A Done that tells nobody."""


class Progress:
    """Writes to `file`, or nowhere. A terminal gets a bar in its last line, any other file a line now and then.

    Attributes:
        seconds: how long each finished stage took, by name.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._is_terminal = file is not None and file.isatty()
        self._costs: Mapping[str, float] = {}
        self._started = self._logged = time.monotonic()
        self._bar = ""
        self.seconds: dict[str, float] = {}

    def plan(self, costs: Mapping[str, float]) -> None:
        """Take the plan: the cost of each stage, in order. The clock that the bar shows starts here."""
        self._costs, self._started = costs, time.monotonic()

    def note(self, line: str) -> None:
        """Write a line that stays."""
        if self._file is not None:
            clear = "\r\x1b[2K" if self._bar else ""
            print(f"{clear}{line}", file=self._file, flush=True)
            self._draw(self._bar)

    @contextmanager
    def stage(self, name: str) -> Iterator[Done]:
        """Run one stage of the plan; yields the function that the caller calls after each step."""
        began, done = time.monotonic(), 0.0

        def step(cost: float, what: str) -> None:
            nonlocal done
            done += cost
            self._step(name, done, what)

        self._step(name, 0.0, "")
        try:
            yield step
        finally:
            self._bar = ""
            if self._is_terminal and self._file is not None:
                print("\r\x1b[2K", end="", file=self._file, flush=True)
        self.seconds[name] = round(time.monotonic() - began, 2)

    def _step(self, name: str, done: float, what: str) -> None:
        if self._file is None:
            return
        share = min(1.0, done / self._costs[name]) if self._costs.get(name) else 0.0
        number = f"{1 + list(self._costs).index(name)}/{len(self._costs)}" if name in self._costs else ""
        text = f"{number:>4} {name:<12}{share:>4.0%}  after {time.monotonic() - self._started:.0f} s"
        if self._is_terminal:
            filled = round(share * WIDTH)
            self._draw(f"[{'#' * filled}{'.' * (WIDTH - filled)}] {text}  {what[:30]}")
        elif time.monotonic() - self._logged > LOG_SECONDS:
            self._logged = time.monotonic()
            print(f"{text}  {what}", file=self._file, flush=True)

    def _draw(self, bar: str) -> None:
        self._bar = bar
        if bar and self._is_terminal:
            print(f"\r\x1b[2K{bar}", end="", file=self._file, flush=True)
