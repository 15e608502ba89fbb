"""A small process between the launcher and Triton: it starts a dead Triton again, and cleans up behind the launcher.

The launcher runs `-m serving.triton.guardian SHM_PREFIX FOLDER GRACE_SECONDS HTTP_URL COMMAND...` with the standard
library alone. The guardian's stdin is a pipe that the launcher holds, so the end of a launcher is an end of file. The
guardian then stops Triton, kills what is left of its process group (a hung server, orphaned stubs) and removes their
shared memory and FOLDER.

This Triton neither notices nor restarts a killed Python process; the clients of that process would wait for ever. The
kernel tells the guardian when one ends, and the guardian asks the server for a sign of life every second. Where a
process is gone, or no sign comes, it replaces the whole server: clients get an error at once and a new server within
seconds. A busy server is not a dead one: while its processes compute, the guardian bears silence for MAX_BUSY_SECONDS.
"""

import contextlib
import ctypes
import glob
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

from serving.triton.health import SILENCE, fault, is_ready

SHM_PREFIX = "EDGE_VLM_SHM_PREFIX"  # environment variable: what the models remove when no other process lives
START_POLL_SECONDS = 0.05
POLL_SECONDS = 0.5  # between two looks at what no file descriptor tells: the watch's verdict, a signal
PROBE_SECONDS = 1.0
MAX_FAULTS = 3  # in a row: one may be a full /dev/shm, which passes
MAX_BUSY_SECONDS = 120.0  # without an answer from processes that compute
MIN_BUSY_SHARE = 0.1  # share of a core: what computes takes more, what hangs takes less
STUB = "triton_python_backend_stub"
CRASHES = ("Fatal Python error", "terminate called")  # how Python's and C++'s accounts of a crash begin
LAST_WORDS_BYTES, LAST_WORDS_LINES = 16_000, 40
_PR_SET_PDEATHSIG = 1


class Watch(threading.Thread):
    """Waits until the server is ready, then until it is dead; `verdict` then says why.

    Args:
        group: the process group of Triton and of its models' processes.
    """

    def __init__(self, http_url: str, group: int) -> None:
        super().__init__(name="watch", daemon=True)
        self.is_begun, self.verdict = False, ""
        self._http_url, self._group, self._ended = http_url, group, threading.Event()
        self._models: dict[int, str] = {}  # by file descriptor of its process: the model's name

    def run(self) -> None:
        while not is_ready(self._http_url):
            if self._ended.wait(START_POLL_SECONDS):
                return
        self._models = {opened(pid): name for pid, name in stubs(self._group).items()}
        self.is_begun, num_faults, answered_seconds = True, 0, time.monotonic()
        while not self._ended.wait(PROBE_SECONDS):
            found = fault(self._http_url)
            num_faults = num_faults + 1 if found else 0
            is_silent = found is not None and found.endswith(SILENCE)
            if not is_silent:
                answered_seconds = time.monotonic()
            is_patient = is_silent and time.monotonic() - answered_seconds < MAX_BUSY_SECONDS
            if found and num_faults >= MAX_FAULTS and not (is_patient and self._is_busy()):
                self.verdict = found
                return

    def _is_busy(self) -> bool:
        """Whether the processes compute, by a look at their next second."""
        begun_seconds, begun_cpu = time.monotonic(), cpu_seconds(self._group)
        self._ended.wait(PROBE_SECONDS)
        return (cpu_seconds(self._group) - begun_cpu) / (time.monotonic() - begun_seconds) > MIN_BUSY_SHARE

    def killed_model(self, wait_seconds: float, *others: int) -> str:
        """The name of a model whose process is gone, else an empty text. Waits for that, or for the others."""
        ended = select.select([*self._models, *others], [], [], wait_seconds)[0]
        return next((name for process, name in self._models.items() if process in ended), "")

    def end(self) -> None:
        self._ended.set()
        self.join()
        for process in self._models:
            os.close(process)


def _facts(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: state, parent, group, ...; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def opened(pid: int) -> int:
    """A file descriptor of a process, which becomes readable when the process is gone."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return os.open(os.devnull, os.O_RDONLY)  # gone already: this is readable at once


def members(group: int) -> list[int]:
    """The processes of a group."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (_facts(pid) or [""] * 3)[2] == str(group)]


def stubs(group: int) -> dict[int, str]:
    """The models' processes of a Triton's group, each with its model's name."""
    found = {}
    for pid in members(group):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if words[0].endswith(STUB):
                found[pid] = Path(words[1]).parts[-3]  # …/MODEL/1/model.py
    return found


def cpu_seconds(group: int) -> float:
    """Seconds of processor time that the processes of a group have taken since they started."""
    ticks = sum(int(facts[11]) + int(facts[12]) for pid in members(group) if len(facts := _facts(pid)) > 12)
    return ticks / os.sysconf("SC_CLK_TCK")


def last_words(log: int, start: int) -> str:
    """What a process that crashed wrote into a log file: Python's account of its threads, or C++'s of an exception.

    Args:
        log: the log's file descriptor; nothing is read where it is a terminal or a pipe.
        start: the first byte that belongs to the process.
    """
    if not stat.S_ISREG(os.fstat(log).st_mode):
        return ""
    with open(f"/proc/self/fd/{log}", "rb") as file:
        file.seek(max(start, os.fstat(log).st_size - LAST_WORDS_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    starts = [place for place, line in enumerate(lines) if line.startswith(CRASHES)]
    return "\n".join(["", *lines[starts[0] :][:LAST_WORDS_LINES]]) if starts else ""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # in case somebody kills the guardian itself


def stop(process: "subprocess.Popen[bytes]", grace_seconds: float) -> None:
    """Send SIGTERM, wait, then send SIGKILL to the whole group. An open gRPC stream alone keeps Triton from leaving."""
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
        log_start = os.fstat(1).st_size
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
            env=os.environ | {SHM_PREFIX: shm_prefix},
        )
        triton, watch = opened(process.pid), Watch(http_url, process.pid)
        watch.start()
        killed = ""
        try:
            while not (is_asked or watch.verdict or killed) and process.poll() is None:
                killed = watch.killed_model(POLL_SECONDS, triton, sys.stdin.fileno())
                is_asked = is_asked or bool(select.select([sys.stdin], [], [], 0)[0])  # EOF is readable
        finally:
            os.close(triton)
            stop(process, 0 if watch.verdict or killed else float(grace_seconds))
            for region in glob.glob(f"/dev/shm/{glob.escape(shm_prefix)}*"):
                os.unlink(region)
        if is_asked:  # else the launcher wants to read the log of a server that ended by itself
            shutil.rmtree(folder, ignore_errors=True)
            return 0
        is_by_itself = not (watch.verdict or killed)
        if not watch.is_begun or (is_by_itself and process.returncode == 0):
            return process.returncode
        watch.end()
        why = watch.verdict or (f"the process of {killed} was killed" if killed else "")
        why = why or f"Triton ended with {process.returncode}"
        why += last_words(1, log_start)
        print(f"warning: the server is started again: {why}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
