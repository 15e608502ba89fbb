"""The page as a user starts it, in a process of its own on a free port."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from tests.conftest import ROOT


@contextmanager
def ui_process(
    bundle: Path,
    triton: str,
    *flags: str,
    end: signal.Signals = signal.SIGINT,
    log: list[str] | None = None,
    **environment: str,
) -> Iterator[str]:
    """`python -m edge_runtime ui` until the block ends, which sends it the signal `end`; yields its address.

    Args:
        log: gets the lines that the page writes.
    """
    line = [sys.executable, "-m", "edge_runtime", "ui", "--bundle", str(bundle), "--triton", triton, "--port", "0"]
    process = subprocess.Popen(
        [*line, "--threads", "1", *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"} | environment,
    )  # fmt: skip
    assert process.stdout is not None
    reader = Thread(
        target=([] if log is None else log).extend, args=(process.stdout,), daemon=True
    )  # a full pipe would stop the page
    try:
        said = ""
        for row in process.stdout:
            said += row
            if row.startswith("ready "):
                reader.start()
                yield row.split()[1]
                break
        else:
            raise AssertionError(said)
    finally:
        process.send_signal(end)
        process.wait(60)  # a loaded machine took 9 s
        if reader.is_alive():
            reader.join(10)
        process.stdout.close()
