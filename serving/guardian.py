"""A small process between the launcher and Triton that cleans up, however the launcher ends.

Run by path with the standard library alone: `guardian.py SHM_PREFIX FOLDER GRACE_SECONDS COMMAND...`. Its stdin is a
pipe held by the launcher, so a killed launcher is an end of file. It then stops Triton, kills what is left of Triton's
process group (a hung server, orphaned stubs) and removes their shared memory and FOLDER.
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

POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


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


def main(shm_prefix: str, folder: str, grace_seconds: str, *command: str) -> int:
    """Returns the server's exit code, 0 when it was asked to stop."""
    is_asked = False

    def ask(*_: object) -> None:
        nonlocal is_asked
        is_asked = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent)
    try:
        while not is_asked and process.poll() is None:
            is_asked = bool(select.select([sys.stdin], [], [], POLL_SECONDS)[0]) or is_asked  # end of file is readable
    finally:
        stop(process, float(grace_seconds))
        for region in glob.glob(f"/dev/shm/{glob.escape(shm_prefix)}*"):
            os.unlink(region)
        if is_asked:  # the launcher wants to read the log of a server that ended by itself
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if is_asked else process.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
