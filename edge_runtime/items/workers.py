"""Workers makes the items of clients' media in processes that it can kill: decoders set themselves no limits.

A process takes one job at a time. Workers kills it when the job passes a limit or its asker leaves; the next job starts
another. A client holds at most its share of the processes, so no client waits for the slow media of another.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from contract.errors import InvalidInput, MediaError, MissingExtra, Unavailable, shown
from edge_runtime.items.item import Item
from edge_runtime.items.maker import PATIENT, Asker, ItemMaker, Options, tuples
from edge_runtime.items.one_tile_maker import OneTileMaker
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.worker import receive, send
from edge_runtime.media.frames import Frames
from edge_runtime.media.opened_file import OpenedFile

START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from edge_runtime.items.worker import main; main()"
START_S = 60.0
MAX_JOBS = 500  # for one process: decoders fragment their memory
LEFT = "the one who asked has left"


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


class _Worker:
    """One process and the socket to it."""

    def __init__(self, maker: ItemMaker | OneTileMaker, limits: DecodingLimits) -> None:
        self.link, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", START, json.dumps(sys.path)]
            self.process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | {"MALLOC_ARENA_MAX": "2"},
            )
        self.num_jobs = 0
        try:
            self.link.settimeout(START_S)
            send(self.link, {"maker": maker.facts(), "max_cpu_s": limits.max_seconds, "max_bytes": limits.max_bytes})
            receive(self.link)
            self.link.settimeout(None)
        except (OSError, EOFError) as error:
            self.close()
            raise Unavailable(f"a decoder did not start within {START_S:g} s: try again later") from error

    def run(self, source: Any, options: Options, mode: str) -> tuple[dict[str, Any], bytearray]:
        self.num_jobs += 1
        job: dict[str, Any] = {
            "kind": "picture" if isinstance(options, PictureOptions) else "video",
            "options": asdict(options),
            "mode": mode,
        }
        if isinstance(source, OpenedFile):
            send(self.link, job | {"source": "file", "name": source.name}, b"", (source.descriptor,))
        elif isinstance(source, Frames):
            send(self.link, job | {"source": "frames", "num_frames": len(source)})
            for frame in source:
                send(self.link, {}, frame)
        else:
            send(self.link, job | {"source": "bytes"}, source)
        answer, patches, _ = receive(self.link)
        return answer, patches

    def kill(self) -> None:
        """End the process; a thread that waits for its answer gets the end of the socket."""
        self.process.kill()
        with suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.kill()
        self.process.wait()
        self.link.close()


class Workers:
    """Makes items as `maker` does, within limits. Safe to share between threads."""

    def __init__(self, maker: ItemMaker | OneTileMaker, limits: DecodingLimits) -> None:
        self._maker, self._limits = maker, limits
        self._share = max(1, limits.num_workers // 2)
        self._idle: list[_Worker] = []
        self._held: Counter[bytes] = Counter()
        self._free = threading.Condition()

    def __call__(self, source: Any, options: Options, asker: Asker = PATIENT, mode: str = "") -> Item:
        """Make the item of a resolved source; see MakeItem.

        Raises:
            MediaError: the source cannot be decoded within the limits, or the asker left.
            MissingExtra: the source is a video file, and PyAV is not installed.
            Unavailable: no process starts.
        """
        if not _is_encoded(source):
            return self._maker(source, options, mode=mode)  # pixels: nothing to decode
        left = threading.Event()
        with self._place(asker, left), self._worker() as worker, asker.told(_all(left.set, worker.kill)):
            name = source.name if isinstance(source, OpenedFile) else "picture or video"
            deadline = time.monotonic() + self._limits.max_seconds
            timer = threading.Timer(self._limits.max_seconds, worker.kill)
            timer.start()
            try:
                answer, data = worker.run(source, options, mode)
            except MediaError:  # a frame cannot be read
                raise
            except (OSError, EOFError, ValueError, KeyError) as error:
                worker.kill()
                raise self._ended(name, worker, left.is_set(), deadline) from error
            finally:
                timer.cancel()
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
    def _worker(self) -> Iterator[_Worker]:
        with self._free:
            worker = self._idle.pop() if self._idle else None
        if worker is None or worker.process.poll() is not None:
            worker = _Worker(self._maker, self._limits)
        is_well = False
        try:
            yield worker
            is_well = worker.num_jobs < MAX_JOBS
        finally:
            if is_well and worker.process.poll() is None:
                with self._free:
                    self._idle.append(worker)
            else:
                worker.close()

    def _ended(self, name: str, worker: _Worker, has_left: bool, deadline: float) -> MediaError:
        if has_left:
            return MediaError(LEFT)
        status = worker.process.wait()
        limit = f"{self._limits.max_seconds:g} s are allowed (the gateway's --max-decode-seconds)"
        if status == -24 or time.monotonic() >= deadline:  # SIGXCPU
            return MediaError(f"{name} takes too long to decode: {limit}; send a smaller one, or a part of it")
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
        raise MediaError(answer["message"])


def _is_encoded(source: Any) -> bool:
    return isinstance(source, bytes | OpenedFile) or (
        isinstance(source, Frames) and all(isinstance(frame, bytes) for frame in source[:1])
    )


def _all(*works: Any) -> Any:
    def run() -> None:
        for work in works:
            work()

    return run
