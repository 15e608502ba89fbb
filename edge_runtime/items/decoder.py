"""One process that decodes for Workers, seen from the side that gives it work and may kill it at any time."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from contract.errors import Unavailable
from edge_runtime.items.maker import ItemMaker, Options
from edge_runtime.items.one_tile_maker import OneTileMaker
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.worker import receive, send
from edge_runtime.media.frames import Frames
from edge_runtime.media.opened_file import OpenedFile

START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from edge_runtime.items.worker import main; main()"
START_S = 60.0
END_S = 1.0  # a process whose socket closes ends within it, or not by itself


class Decoder:
    """One process and the socket to it.

    Args:
        maker: makes the items in the process.
        max_seconds: the most seconds of CPU time of one job.
        max_bytes: the most bytes of memory beyond those of an idle process.

    Attributes:
        num_jobs: how many jobs it has begun.
        is_killed: whether this object has killed it.

    Raises:
        Unavailable: the process does not start.
    """

    def __init__(self, maker: ItemMaker | OneTileMaker, max_seconds: float, max_bytes: int) -> None:
        self.num_jobs, self.is_killed = 0, False
        self.process, self.link = _started()
        try:
            self.link.settimeout(START_S)
            send(self.link, {"maker": maker.facts(), "max_cpu_s": max_seconds, "max_bytes": max_bytes})
            receive(self.link)
            self.link.settimeout(None)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise Unavailable(f"a decoder did not start within {START_S:g} s: try again later") from error

    def run(self, source: Any, options: Options, mode: str) -> tuple[dict[str, Any], bytearray]:
        """The process' answer to one job: a header, and the bytes of an item.

        Raises:
            MediaError: a frame cannot be read.
            OSError, EOFError, ValueError: the process ended, or answers what is no answer.
        """
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
            for place, frame in enumerate(source):
                send(self.link, {"name": source.name(place)}, frame)
        else:
            send(self.link, job | {"source": "bytes"}, source)
        answer, patches, descriptors = receive(self.link)
        for descriptor in descriptors:  # nobody asked for one
            os.close(descriptor)
        return answer, patches

    def kill(self) -> None:
        """End the process; a thread that waits for its answer gets the end of the socket."""
        self.is_killed = True
        self.process.kill()
        with suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)

    def end(self) -> int | None:
        """Its exit status; None where it has to be killed, because it does not end."""
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def close(self) -> None:
        """End the process and give back its socket."""
        self.kill()
        self.process.wait()
        self.link.close()


def _started() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A new process and the socket to it.

    Raises:
        Unavailable: the system gives no process, socket or memory.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise Unavailable(f"a decoder cannot start: {error.strerror}: try again later") from error
    with theirs:
        command = [sys.executable, "-c", START, json.dumps(sys.path)]
        try:
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | {"MALLOC_ARENA_MAX": "2"},
            )
        except OSError as error:
            ours.close()
            raise Unavailable(f"a decoder cannot start: {error.strerror}: try again later") from error
    return process, ours


class Leash:
    """Kills a decoder while its job runs, and never afterwards: it may do the job of another client by then."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._lock, self._is_over = decoder, threading.Lock(), False

    def pull(self) -> None:
        """Kill the decoder, unless the job is over."""
        with self._lock:
            if not self._is_over:
                self._decoder.kill()

    def drop(self) -> None:
        """Say that the job is over."""
        with self._lock:
            self._is_over = True
