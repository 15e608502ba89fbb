"""A small process between the launcher and Triton: starts it again when it is dead, cleans up when the launcher ends.

Run as `-m serving.triton.guardian SHM_PREFIX FOLDER GRACE_SECONDS HTTP_URL COMMAND...` with the standard library alone. Its stdin
is a pipe held by the launcher, so a killed launcher is an end of file. It then stops Triton, kills what is left of its
process group (a hung server, orphaned stubs) and removes their shared memory and FOLDER.

This Triton neither notices nor restarts a killed Python process; the clients of that process would wait for ever. The
guardian asks for a sign of life every second, and where none comes the whole server goes: clients get an error at once
and a new server within seconds.
"""

import contextlib
import ctypes
import glob
import os
import select
import shutil
import signal
import subprocess
import sys
import threading

from serving.triton.health import fault, is_ready

POLL_SECONDS = 0.05
PROBE_SECONDS = 1.0
MAX_FAULTS = 3  # in a row: one may be a full /dev/shm, which passes
_PR_SET_PDEATHSIG = 1


class Watch(threading.Thread):
    """Waits until the server is ready, then until it is found dead; `verdict` then says why."""

    def __init__(self, http_url: str) -> None:
        super().__init__(name="watch", daemon=True)
        self.is_begun, self.verdict = False, ""
        self._http_url, self._ended = http_url, threading.Event()

    def run(self) -> None:
        while not is_ready(self._http_url):
            if self._ended.wait(POLL_SECONDS):
                return
        self.is_begun, num_faults = True, 0
        while not self._ended.wait(PROBE_SECONDS):
            found = fault(self._http_url)
            num_faults = num_faults + 1 if found else 0
            if found and num_faults == MAX_FAULTS:
                self.verdict = found
                return

    def end(self) -> None:
        self._ended.set()
        self.join()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should the guardian itself be killed


def stop(process: "subprocess.Popen[bytes]", grace_seconds: float) -> None:
    """SIGTERM, a while, then SIGKILL to the whole group. An open gRPC stream alone keeps Triton from leaving."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main(shm_prefix: str, folder: str, grace_seconds: str, http_url: str, *command: str) -> int:
    """Returns the exit code of a server that never became ready or left by itself, 0 when it was asked to stop."""
    is_asked = False

    def ask(*_: object) -> None:
        nonlocal is_asked
        is_asked = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    while True:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        watch = Watch(http_url)
        watch.start()
        try:
            while not (is_asked or watch.verdict) and process.poll() is None:
                is_asked = bool(select.select([sys.stdin], [], [], POLL_SECONDS)[0]) or is_asked  # EOF is readable
        finally:
            stop(process, 0 if watch.verdict else float(grace_seconds))
            for region in glob.glob(f"/dev/shm/{glob.escape(shm_prefix)}*"):
                os.unlink(region)
        if is_asked:  # else the launcher wants to read the log of a server that ended by itself
            shutil.rmtree(folder, ignore_errors=True)
            return 0
        if not watch.is_begun or process.returncode == 0:
            return process.returncode
        watch.end()
        why = watch.verdict or f"Triton ended with {process.returncode}"
        print(f"warning: the server is started again: {why}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
