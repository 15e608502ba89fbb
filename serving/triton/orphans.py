"""Ends what a killed guardian leaves: Triton, its models' processes and their shared memory, each known by its mark.

Triton and all that it starts inherit an environment variable with the server's unique mark, so the launcher touches no
process of another server or program.
"""

import contextlib
import glob
import os
import signal
import time
from pathlib import Path

from serving.triton.guardian import SHM_PREFIX

GIVE_UP_SECONDS = 10.0


def marked(shm_prefix: str) -> list[int]:
    """The ids of this server's processes, without the guardian."""
    mark, found = f"{SHM_PREFIX}={shm_prefix}".encode(), []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):  # gone, or another user's
            if mark in Path(f"/proc/{int(name)}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


def end_orphans(shm_prefix: str) -> None:
    """Kill the processes, wait until they are gone, remove their shared memory."""
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while (pids := marked(shm_prefix)) and time.monotonic() < give_up:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for region in glob.glob(f"/dev/shm/{glob.escape(shm_prefix)}*"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(region)
