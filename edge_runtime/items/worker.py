"""The process that decodes the media of clients: it makes items until its socket closes, and may be killed at any time.

A job and its answer are a header of JSON and plain bytes. No side uses pickle, so an attacker who takes the decoder
over can send nothing but pixels. The system limits the memory and CPU time of the process: FFmpeg and Pillow obey no
other limits.
"""

import gc
import json
import math
import os
import resource
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import EdgeVlmError
from edge_runtime.items.maker import ItemMaker
from edge_runtime.items.one_tile_maker import OneTileMaker
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.media.frames import Frames
from edge_runtime.media.opened_file import OpenedFile

HEAD = struct.Struct("<I")  # the number of bytes of the JSON that follows
MAX_HEADER_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 1 << 32  # no source and no item is larger


def send(link: socket.socket, header: dict[str, Any], payload: Any = b"", descriptors: tuple[int, ...] = ()) -> None:
    """Send a header and the bytes that belong to it; `num_bytes` of the header says how many.

    Args:
        header: what JSON can hold.
        payload: bytes, or a view of uint8 values.
        descriptors: open files that the other process may read.
    """
    text = json.dumps(header | {"num_bytes": len(payload)}).encode()
    if descriptors:
        socket.send_fds(link, [HEAD.pack(len(text))], descriptors)
    else:
        link.sendall(HEAD.pack(len(text)))
    link.sendall(text)
    link.sendall(payload)


def receive(link: socket.socket) -> tuple[dict[str, Any], bytearray, list[int]]:
    """Receive what `send` sent: the header, the bytes, and at most one descriptor.

    Raises:
        EOFError: the other process closed the socket, was killed, or announces more than a header or the bytes may be.
        ValueError: the header is no JSON object that says the number of bytes.
    """
    head, descriptors, _, _ = socket.recv_fds(link, HEAD.size, 1)
    size = HEAD.unpack(head + _exactly(link, HEAD.size - len(head)))[0]
    if size > MAX_HEADER_BYTES:
        raise EOFError(f"a header of {size} bytes")
    try:
        header = json.loads(bytes(_exactly(link, size)))
    except RecursionError as error:
        raise ValueError("a header that nests too deeply") from error
    num_bytes = header.get("num_bytes") if isinstance(header, dict) else None
    if type(num_bytes) is not int:
        raise ValueError("a header without the number of bytes")
    if not 0 <= num_bytes <= MAX_PAYLOAD_BYTES:
        raise EOFError(f"a message of {num_bytes} bytes")
    return header, _exactly(link, num_bytes), list(descriptors)


def _exactly(link: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        if not (count := link.recv_into(view)):
            raise EOFError("the other side closed")
        view = view[count:]
    return data


class _Following:
    """The frames that follow their job on the socket; a frame comes off the socket when a reader asks for it."""

    def __init__(self, link: socket.socket, num_frames: int) -> None:
        self._link, self._num_left = link, num_frames
        self._names = [""] * num_frames
        self.frames = Frames(self._names, lambda _: self.next())

    def next(self) -> bytes:
        header, frame, _ = receive(self._link)
        self._names[-self._num_left] = header["name"]
        self._num_left -= 1
        return bytes(frame)

    def drop(self) -> None:
        """Read the frames that nobody asked for."""
        while self._num_left > 0:
            self.next()


def _maker(facts: dict[str, Any]) -> ItemMaker | OneTileMaker:
    return ItemMaker.from_facts(facts) if "card" in facts else OneTileMaker.from_facts(facts)


def _answer(
    make: ItemMaker | OneTileMaker, job: dict[str, Any], data: bytearray, descriptors: list[int], frames: Frames
) -> tuple[dict[str, Any], Any]:
    try:
        source: Any = frames if job["source"] == "frames" else bytes(data)
        if job["source"] == "file":
            source = OpenedFile(descriptors[0], job["name"])
        options = (PictureOptions if job["kind"] == "picture" else VideoOptions)(**job["options"])
        item = make(source, options, mode=job["mode"])
    except EdgeVlmError as error:
        return {"error": type(error).__name__, "message": str(error)}, b""
    except MemoryError:
        return {"error": "MemoryError", "message": ""}, b""
    except Exception as error:  # a decoder's errors are of any type
        return {"error": "MediaError", "message": f"it cannot be decoded: {error or type(error).__name__}"}, b""
    values = {field.name: getattr(item, field.name) for field in fields(item) if field.name != "patches"}
    return {"values": values, "shape": item.patches.shape}, np.ascontiguousarray(item.patches).reshape(-1).data


def _limit(max_bytes: int) -> None:
    """Bound what this process may hold beyond what it holds now."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # Linux has /proc
        lines = Path("/proc/self/status").read_text().splitlines()
        held = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (held + max_bytes, held + max_bytes))


def main() -> None:
    """Serve the socket on standard input."""
    link = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    facts, _, _ = receive(link)
    make, max_cpu_s = _maker(facts["maker"]), facts["max_cpu_s"]
    with suppress(EdgeVlmError):  # without PyAV there are no video files
        import edge_runtime.media.video_file  # noqa: F401  load it before the memory has a limit
    gc.freeze()  # each video collects what it leaves; the modules need no look
    _limit(facts["max_bytes"])
    send(link, {})
    while True:
        try:
            job, data, descriptors = receive(link)
        except EOFError:
            return
        # the system counts whole seconds and kills this process by SIGXCPU
        most = math.ceil(time.process_time() + max_cpu_s)
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
        following = _Following(link, job.get("num_frames", 0))
        answer = _answer(make, job, data, descriptors, following.frames)
        following.drop()
        send(link, *answer)
