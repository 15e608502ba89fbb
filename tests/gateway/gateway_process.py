"""A gateway as a user starts it, in a process of its own on a free port."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
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

    def ask(self, path: str = "/v1/chat/completions", body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Status, JSON (or text) and headers of a plain request; POST where there is a body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            names = {"Content-Type": "application/json"} if body is not None else {}
            names |= {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET" if body is None else "POST", path, data, names)
            answer = connection.getresponse()
            said = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(said) if is_json else said.decode(), answer.headers
        finally:
            connection.close()

    def counted(self, name: str, labels: str = "") -> float:
        """Sum of the samples of a metric, all or those with some labels."""
        _, text, _ = self.ask("/metrics")
        found = re.findall(rf"^edge_vlm_gateway_{name}(?:{{.*{labels}.*}})? (\S+)$", text, re.MULTILINE)
        assert found, name
        return sum(map(float, found))

    def peak_bytes(self) -> int:
        """The most memory the process has used."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024


@contextmanager
def gateway_process(
    bundle: Path, triton: str, *flags: str | Path, patience: str = "", **environment: str
) -> Iterator[Gateway]:
    """`python -m edge_runtime serve` until the block ends.

    Args:
        patience: statements that shorten the waits of edge_runtime.gateway before it starts.
    """
    run = f"import sys; {patience}; from edge_runtime.__main__ import main; sys.exit(main(sys.argv[1:]))"
    start = ["-c", run] if patience else ["-m", "edge_runtime"]
    command = [sys.executable, *start, "serve", "--bundle", bundle, "--triton", triton]
    command += ["--port", "0", "--threads", "1", *flags]
    with subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http"), url
            # the access log goes to the same pipe: a full one would stop the gateway
            drain = Thread(target=deque, args=(process.stdout, 0))
            drain.start()
            yield Gateway(url, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        drain.join()
