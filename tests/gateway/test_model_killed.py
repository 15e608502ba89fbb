"""The model's process dies under the gateway: callers read 503 with Retry-After, and soon after they are answered again."""

import os
import signal
from pathlib import Path

from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.gateway.gateway_process import gateway_process
from tests.gateway.test_leaving import LONG, sent
from tests.waiting import wait_for

HELLO = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "max_tokens": 2}


def model_processes(server: TritonServer) -> list[int]:
    """Processes of the streaming model in this server."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            is_ours = any(server.shm_prefix.encode() in word for word in words)
            if (
                is_ours
                and not any(b"guardian" in word for word in words)
                and any(b"/edge_vlm/1" in w for w in words[:2])
            ):
                found.append(int(folder.name))
    return found


def test_a_killed_model_is_said_as_unavailable(bundle_folder: Path, language_folder: Path, tmp_path: Path) -> None:
    with (
        TritonServer(settings(language_folder), log_file=tmp_path / "log") as server,
        gateway_process(bundle_folder, server.grpc_url) as gateway,
    ):
        assert gateway.ask(body=HELLO)[0] == 200
        with sent(gateway, HELLO | {"stream": True} | LONG) as caller:
            answer = caller.makefile("rb")
            while not answer.readline().startswith(b"data: {"):
                pass
            (process,) = model_processes(server)
            os.kill(process, signal.SIGKILL)
            while not (line := answer.readline()).startswith(b'data: {"error":{'):
                assert line, "the answer ended without an error"
        statuses = []

        def is_back() -> bool:
            status, said, headers = gateway.ask(body=HELLO)
            statuses.append(status)
            assert status in (200, 503), said
            assert status == 200 or headers["Retry-After"]
            return status == 200

        wait_for(is_back, 90)
        assert 503 in statuses
