"""Workers makes the items of clients' media in processes that it can kill: decoders set themselves no limits.

A process takes one job at a time. Workers kills it when the job passes a limit or its asker leaves; the next job starts
another. A client holds at most its share of the processes, so no client waits for the slow media of another.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from contract.errors import InvalidInput, MediaError, MissingExtra, Unavailable, shown
from edge_runtime.items.decoder import Decoder, Leash
from edge_runtime.items.item import Item
from edge_runtime.items.maker import PATIENT, Asker, ItemMaker, Options, tuples
from edge_runtime.items.one_tile_maker import OneTileMaker
from edge_runtime.media.frames import Frames
from edge_runtime.media.opened_file import OpenedFile

MAX_JOBS = 500  # for one process: decoders fragment their memory
LEFT = "the one who asked has left"
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)  # no decoder ends itself so


@dataclass(frozen=True)
class DecodingLimits:
    """What one picture or video may take.

    Attributes:
        max_seconds: the most seconds of CPU time, and of time on the clock; at least 1.
        max_bytes: the most bytes of memory beyond those of an idle process; at least 16 MiB.
        num_workers: the most processes at once, at least 1; one client holds at most half of them, or the only one.

    Raises:
        InvalidInput: a limit is below its least value.
    """

    max_seconds: float = 20.0
    max_bytes: int = 1 << 30
    num_workers: int = 2

    def __post_init__(self) -> None:
        for name, low in (("max_seconds", 1.0), ("max_bytes", 1 << 24), ("num_workers", 1)):
            if not getattr(self, name) >= low:
                raise InvalidInput(f"{name} is {getattr(self, name)}, at least {low:g} is expected")


class _Lost(Unavailable):
    """Somebody outside killed the process of a job."""


class Workers:
    """Makes items as `maker` does, within limits. Safe to share between threads."""

    def __init__(self, maker: ItemMaker | OneTileMaker, limits: DecodingLimits) -> None:
        self._maker, self._limits = maker, limits
        self._share = max(1, limits.num_workers // 2)
        self._idle: list[Decoder] = []
        self._held: Counter[bytes] = Counter()
        self._free = threading.Condition()

    def __call__(self, source: Any, options: Options, asker: Asker = PATIENT, mode: str = "") -> Item:
        """Make the item of a resolved source; see MakeItem.

        Raises:
            MediaError: the source cannot be decoded within the limits, or the asker left.
            MissingExtra: the source is a video file, and PyAV is not installed.
            Unavailable: no process starts, or the system ended the process.
        """
        if not _is_encoded(source):
            return self._maker(source, options, mode=mode)  # pixels: nothing to decode
        left = threading.Event()
        with self._place(asker, left):
            try:
                return self._made(source, options, asker, mode, left)
            except _Lost:  # perhaps the process waited for work when somebody killed it: another one tries
                return self._made(source, options, asker, mode, left)

    def _made(self, source: Any, options: Options, asker: Asker, mode: str, left: threading.Event) -> Item:
        name = source.name if isinstance(source, OpenedFile) else "picture or video"
        with self._worker() as worker:
            leash = Leash(worker)
            deadline = time.monotonic() + self._limits.max_seconds
            timer = threading.Timer(self._limits.max_seconds, leash.pull)
            with asker.told(_all(left.set, leash.pull)):
                timer.start()
                try:
                    answer, data = worker.run(source, options, mode)
                except MediaError:  # a frame cannot be read
                    raise
                except (OSError, EOFError, ValueError, KeyError) as error:
                    raise self._ended(name, worker, left.is_set(), deadline) from error
                finally:
                    timer.cancel()
                    leash.drop()
        return self._read(answer, data, name)

    def close(self) -> None:
        """End the processes that wait for work."""
        with self._free:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    @contextmanager
    def _place(self, asker: Asker, left: threading.Event) -> Iterator[None]:
        """Hold the place of a process inside the block, within the client's share; wait for it where none is free."""

        def leave() -> None:
            left.set()
            with self._free:
                self._free.notify_all()

        caller = asker.caller
        with asker.told(leave), self._free:
            self._free.wait_for(lambda: left.is_set() or self._is_free(caller))
            if left.is_set():
                raise MediaError(LEFT)
            self._held[caller] += 1
        try:
            yield
        finally:
            with self._free:
                self._held[caller] -= 1
                if not self._held[caller]:
                    del self._held[caller]
                self._free.notify_all()

    def _is_free(self, caller: bytes) -> bool:
        return self._held[caller] < self._share and self._held.total() < self._limits.num_workers

    @contextmanager
    def _worker(self) -> Iterator[Decoder]:
        with self._free:
            worker = self._idle.pop() if self._idle else None
        if worker is None or worker.process.poll() is not None:
            worker = Decoder(self._maker, self._limits.max_seconds, self._limits.max_bytes)
        is_well = False
        try:
            yield worker
            is_well = worker.num_jobs < MAX_JOBS and not worker.is_killed
        finally:
            if is_well and worker.process.poll() is None:
                with self._free:
                    self._idle.append(worker)
            else:
                worker.close()

    def _ended(self, name: str, worker: Decoder, has_left: bool, deadline: float) -> MediaError | Unavailable:
        """The error for a process that ended before its answer, or gave none that anybody can read."""
        was_killed, status = worker.is_killed, worker.end()
        if has_left:
            return MediaError(LEFT)
        limit = f"{self._limits.max_seconds:g} s are allowed (the gateway's --max-decode-seconds)"
        if status == -24 or time.monotonic() >= deadline:  # SIGXCPU
            return MediaError(f"{name} takes too long to decode: {limit}; send a smaller one, or a part of it")
        if status in FROM_OUTSIDE and not was_killed:
            return _Lost(f"the system ended the decoder with status {status}: try again later")
        return MediaError(
            f"{name} ended its decoder with status {status}, which may use {self._limits.max_bytes} bytes: send a file that "
            "is smaller and not damaged"
        )

    def _read(self, answer: dict[str, Any], data: bytearray, name: str) -> Item:
        if (error := answer.get("error")) is None:
            try:
                return Item(np.frombuffer(data, np.uint8).reshape(answer["shape"]), **tuples(answer["values"]))
            except (KeyError, TypeError, ValueError) as wrong:
                raise MediaError(f"{name} cannot be decoded: its decoder answers {shown(answer)}; try again") from wrong
        if error == "MemoryError":
            raise MediaError(
                f"{name} takes too much memory to decode: {self._limits.max_bytes} bytes are allowed (the gateway's "
                "--max-decode-bytes); send a smaller one"
            )
        if error == MissingExtra.__name__:
            raise MissingExtra("video files", "video")
        raise MediaError(str(answer.get("message", shown(error))))


def _is_encoded(source: Any) -> bool:
    return isinstance(source, bytes | OpenedFile) or (
        isinstance(source, Frames) and all(isinstance(frame, bytes) for frame in source[:1])
    )


def _all(*works: Any) -> Any:
    def run() -> None:
        for work in works:
            work()

    return run
