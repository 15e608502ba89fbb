"""A gateway as a user starts it, in a process of its own on a free port."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from tests.conftest import ROOT


class Gateway:
    """Its address, its process, and an official client that speaks to it."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url, self.process = url, process  # url ends in /v1
        self.root = url.removesuffix("/v1")
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.host, self.port = parts.hostname, parts.port

    def client(self, api_key: str = "none", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=api_key, **({"max_retries": 0, "timeout": 60} | options))

    def rss_bytes(self) -> int:
        """Memory of the process that is in use now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def gateway_process(bundle: Path, triton: str, *flags: str, **environment: str) -> Iterator[Gateway]:
    """`python -m edge_runtime serve` until the block ends."""
    command = [sys.executable, "-m", "edge_runtime", "serve", "--bundle", bundle, "--triton", triton]
    command += ["--port", "0", "--threads", "1", *flags]
    with subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http"), url
            yield Gateway(url, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
