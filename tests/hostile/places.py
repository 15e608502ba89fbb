"""What a server keeps things in is full or gone: /dev/shm, the disk of its private folder, the store of pictures.

The first two in a mount namespace of their own, where the machine allows one.
"""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

from serving.triton.health import fault
from tests.edge.ways import free_port
from tests.hostile.chaos import AGAIN_SECONDS, Launched, as_request
from tests.hostile.doors import Doors
from tests.serving.reference import Reference
from tests.serving.wire import stream, tensors
from tests.waiting import seconds_until

SMALL_SHM, SMALL_DISK = "256m", "16m"


def _mounted(folder: str, size: str) -> tuple[str, ...]:
    """The start of a command line that runs with a small file system of its own on a folder."""
    script = f'mount -t tmpfs -o size={size} tmpfs {folder} && exec "$@"'
    return "unshare", "-m", "sh", "-c", script, "sh"


def _not_run(victim: str, why: str) -> dict[str, Any]:
    return {"victim": victim, "client_saw": f"not run: {why}"}


def _can_mount() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


def _answers(server: Launched, values: dict[str, Any], expected: Any) -> Callable[[], bool]:
    def is_served() -> bool:
        try:
            return stream(server.grpc_url, values)[0] == expected
        except Exception:  # whatever a client meets meanwhile
            return False

    return is_served


def full_memory(reference: Reference) -> dict[str, Any]:
    """A full /dev/shm: a large request is refused, and served when there is room again."""
    if not _can_mount():
        return _not_run("/dev/shm full", "no mount namespace on this machine")
    server = Launched(reference, *_mounted("/dev/shm", SMALL_SHM))
    try:
        inside = ["nsenter", "-t", str(server.process.pid), "-m"]
        calm = tensors(reference.cases()["video"])
        expected = stream(server.grpc_url, calm)[0]
        subprocess.run([*inside, "sh", "-c", "cat /dev/zero > /dev/shm/filler"], capture_output=True, check=False)
        doors = Doors(server.http_url, server.grpc_url)
        begun = time.monotonic()
        seen = doors.infer(as_request({"text_input": "x" * 30_000_000}))  # more than the pool that a model has taken
        seconds = round(time.monotonic() - begun, 2)
        subprocess.run([*inside, "rm", "/dev/shm/filler"], check=True)
        doors.close()
        again = seconds_until(_answers(server, calm, expected), AGAIN_SECONDS)
    finally:
        server.close()
    return {
        "victim": "/dev/shm full",
        "client_saw": f"{seen.kind} {seen.text[:120]}",
        "client_s": seconds,
        "served_again_s": again,
        "left": 0,
    }


def full_disk(reference: Reference) -> dict[str, Any]:
    """A full disk under the server's private folder and log: it serves on, and starts again after a kill."""
    if not _can_mount():
        return _not_run("disk full", "no mount namespace on this machine")
    with tempfile.TemporaryDirectory() as folder:
        server = Launched(reference, *_mounted(folder, SMALL_DISK), TMPDIR=folder)
        try:
            inside = ["nsenter", "-t", str(server.process.pid), "-m"]
            calm = tensors(reference.cases()["text"])
            expected = stream(server.grpc_url, calm)[0]
            subprocess.run([*inside, "sh", "-c", f"cat /dev/zero > {folder}/filler"], capture_output=True, check=False)
            begun = time.monotonic()
            is_served = _answers(server, calm, expected)()
            seconds = round(time.monotonic() - begun, 2)
            server.kill("tritonserver", signal.SIGKILL)
            again = seconds_until(
                lambda: _answers(server, calm, expected)() and fault(server.http_url) is None, AGAIN_SECONDS
            )
        finally:
            server.close()
    return {
        "victim": "disk full, then tritonserver",
        "signal": "SIGKILL",
        "client_saw": "served" if is_served else "refused",
        "client_s": seconds,
        "served_again_s": again,
        "left": 0,
    }


def gone_store(reference: Reference) -> dict[str, Any]:
    """The Redis of --reuse-store is killed: requests are answered without it."""
    program = shutil.which("redis-server")
    if program is None:
        return _not_run("the store gone", "apt-get install redis-server")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        line = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        store = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        server = Launched(reference, flags=("--reuse-store", f"redis://127.0.0.1:{port}/0"))
        try:
            calm = tensors(reference.cases()["video"])
            expected = stream(server.grpc_url, calm)[0]
            store.kill()
            store.wait()
            begun = time.monotonic()
            is_served = _answers(server, calm, expected)()
            seconds = round(time.monotonic() - begun, 2)
            again = seconds_until(
                lambda: _answers(server, calm, expected)() and fault(server.http_url) is None, AGAIN_SECONDS
            )
        finally:
            server.close()
            store.kill()
    return {
        "victim": "the store gone",
        "signal": "SIGKILL",
        "client_saw": "served" if is_served else "refused",
        "client_s": seconds,
        "served_again_s": again,
        "left": 0,
    }
