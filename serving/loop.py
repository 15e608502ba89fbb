"""An asyncio event loop in a thread of its own, in which a model reads its streams beside Triton's threads."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any


class LoopThread:
    """Owns the thread; `close` ends it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Run a coroutine in the loop; whoever cancels the future cancels it there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self, timeout_seconds: float | None = None) -> None:
        """Stop the loop where it is and wait for the thread; the coroutines that still run in it never end."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout_seconds)
