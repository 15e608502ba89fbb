"""The door for balancers: yes while the server takes requests, no before it stops, while it still answers."""

import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from contract.errors import ServerError
from serving.triton.launcher import TritonServer
from serving.triton.readiness import Readiness
from tests.edge.ways import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]


def ask(port: int) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=15) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_it_says_what_the_server_does(server: TritonServer) -> None:
    with Readiness(server.http_url, "127.0.0.1", 0) as door:
        assert ask(door.port) == (200, b"ready\n")
        door.leave(0)
        assert ask(door.port) == (503, b"leaving\n")
        with pytest.raises(ServerError, match=f"ready port {door.port} of 127"):
            Readiness(server.http_url, "127.0.0.1", door.port)
    with Readiness(f"127.0.0.1:{free_port()}", "127.0.0.1", 0) as door:
        assert ask(door.port) == (503, b"not ready\n")


def test_a_balancer_that_hangs_up_leaves_no_traceback(server: TritonServer, capsys: pytest.CaptureFixture[str]) -> None:
    with Readiness(server.http_url, "127.0.0.1", 0) as door:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", door.port)) as check:
                check.sendall(b"GET / HTTP/1.0\r\n\r\n")
                check.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
        assert ask(door.port) == (200, b"ready\n")
        wait_for(lambda: not [one for one in threading.enumerate() if "process_request" in one.name])
    assert capsys.readouterr().err == ""


def test_a_server_that_is_told_to_stop_says_so_and_serves_on(language_folder: Path) -> None:
    http_port, ready_port = free_port(), free_port()
    line = [sys.executable, "-m", "serving", "--model", str(language_folder), "--threads", "1"]
    line += ["--http-port", str(http_port), "--grpc-port", "0", "--metrics-port", "0"]
    line += ["--ready-port", str(ready_port), "--drain-seconds", "4"]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        assert ask(ready_port)[0] == 200
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: ask(ready_port) == (503, b"leaving\n"))
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/v2", timeout=10) as answer:
            assert answer.status == 200  # still served
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()
