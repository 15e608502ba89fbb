"""Wait for a state and never for a time: CI's machine is slow, so every wait has a generous limit."""

import asyncio
import time
from collections.abc import Callable

SECONDS = 30.0


def seconds_until(condition: Callable[[], object], seconds: float = SECONDS) -> float | None:
    """Seconds until it holds; None where it never does."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            return None
        time.sleep(0.02)
    return round(time.monotonic() - begun, 2)


def wait_for(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Return once it holds."""
    assert seconds_until(condition, seconds) is not None, f"it does not hold after {seconds:g} s"


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """The same inside a loop that must go on."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
