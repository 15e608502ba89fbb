"""A server that dies in any of its parts is back within seconds, on the same ports; one that was asked to go drains first."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from contract.names import MODEL, OLD_NAMES, UNARY_MODEL, VISION_MODEL
from serving.settings import Settings
from serving.triton import guardian
from serving.triton.guardian import Watch
from serving.triton.health import PROBES, fault, is_ready
from serving.triton.launcher import TritonServer
from tests.serving.reference import Case, Reference
from tests.serving.test_launcher import guardian_of, processes, start, wait_until_gone
from tests.serving.test_triton import LONG
from tests.serving.wire import TIMEOUT_SECONDS, is_final, opened, stream, tensors
from tests.waiting import wait_for


def pid_of(server: TritonServer, word: str) -> int | None:
    """The process of this server, "bin/tritonserver" or a model's name, and not the guardian, whose command names both."""
    for pid, words in processes().items():
        is_ours = any(server.shm_prefix in w for w in words) and not any("guardian" in w for w in words)
        if is_ours and any(f"/{word}" in w for w in words[:2]):
            return pid
    return None


def is_refused(url: str, values: dict) -> bool:
    try:
        stream(url, values)
    except InferenceServerException:
        return True
    return False


@pytest.fixture(scope="module")
def mortal(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    settings = Settings(str(reference.language), dtype="fp32", num_threads=1)
    with TritonServer(settings, log_file=tmp_path_factory.mktemp("mortal") / "log") as server:
        yield server


@pytest.mark.parametrize("victim", [f"{MODEL}/1", f"{UNARY_MODEL}/1", "bin/tritonserver"])
def test_back_after_a_kill(mortal: Any, cases: dict[str, Case], victim: str) -> None:
    """No client waits for the dead: the one with a running stream gets an error at once."""
    wait_for(lambda: fault(mortal.http_url) is None)
    pid = pid_of(mortal, victim)
    with opened(mortal.grpc_url, tensors(cases["text"], sampling=LONG)) as (_, answers):
        answers.get(timeout=TIMEOUT_SECONDS)
        os.kill(pid, signal.SIGKILL)
        killed_seconds = time.monotonic()
        while (error := answers.get(timeout=TIMEOUT_SECONDS)[1]) is None:
            pass
        assert time.monotonic() - killed_seconds < 10
        assert isinstance(error, InferenceServerException)
    wait_for(lambda: not is_ready(mortal.http_url), seconds=30)
    wait_for(lambda: pid_of(mortal, victim) not in (pid, None) and fault(mortal.http_url) is None, seconds=60)
    assert stream(mortal.grpc_url, tensors(cases["one image"]))[0] == cases["one image"].expected
    assert mortal.poll() is None


@pytest.mark.parametrize(("answers", "is_dead"), [("ok bad bad ok bad bad ok", False), ("ok bad bad bad", True)])
def test_it_takes_three_faults_in_a_row(answers: str, is_dead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fault may be a full /dev/shm; restarting for it would end every stream."""
    monkeypatch.setattr(guardian, "PROBE_SECONDS", 0.05)
    left = answers.split()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer("")

        def do_POST(self) -> Any:
            if "generate" not in self.path:
                return self.answer(json.dumps([{"name": MODEL, "state": "READY"}]))
            word = left.pop(0)
            if not left:
                watch._ended.set()
            return self.answer("[NOT_FOUND] no request" if word == "ok" else "Stub process is not healthy")

        def answer(self, text: Any) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        watch = Watch(f"127.0.0.1:{server.server_port}", os.getpgid(0))
        watch.start()
        watch.join(TIMEOUT_SECONDS)
        server.shutdown()
    assert not left
    assert watch.is_begun
    assert ("not healthy" in watch.verdict) == is_dead


def test_every_model_has_a_probe() -> None:
    assert set(PROBES) == {MODEL, UNARY_MODEL, VISION_MODEL, *OLD_NAMES}


def test_the_command(mortal: Any) -> None:
    wait_for(lambda: fault(mortal.http_url) is None)
    line = [sys.executable, "-m", "serving.health"]
    done = subprocess.run([*line, mortal.http_url], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "healthy\n")
    done = subprocess.run([*line, "127.0.0.1:9"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stdout == "the server does not answer at 127.0.0.1:9: Connection refused\n"
    url = f"http://{mortal.http_url}/"
    assert subprocess.run([*line, url], capture_output=True, text=True, timeout=30).stdout == "healthy\n"
    assert "HOST:PORT" in subprocess.run([*line, "--help"], capture_output=True, text=True, timeout=30).stdout


def test_a_dead_engine_is_replaced(mortal: Any, cases: dict[str, Case], tmp_path: Path) -> None:
    """The engine's thread is made to die in the running model; its process and Triton's readiness notice nothing."""
    wait_for(lambda: fault(mortal.http_url) is None)
    once, model = tmp_path / "once", mortal._folder / "models" / MODEL / "1" / "model.py"
    loaded = "self.engine = settings.load_engine(self.thread)\n"
    dying = f"{loaded}        if Path({str(once)!r}).exists():\n            self.engine._turn_over = lambda: 1 / 0\n"
    assert loaded in model.read_text()
    model.write_text(model.read_text().replace(loaded, dying))
    once.touch()
    pid = pid_of(mortal, "bin/tritonserver")
    os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: pid_of(mortal, "bin/tritonserver") not in (pid, None) and fault(mortal.http_url) is None, seconds=60
    )
    assert stream(mortal.grpc_url, tensors(cases["one image"]))[2] == "error"  # after the first token
    assert "the engine died" in fault(mortal.http_url)
    assert is_ready(mortal.http_url)
    once.unlink()
    wait_for(lambda: not is_ready(mortal.http_url), seconds=30)
    wait_for(lambda: fault(mortal.http_url) is None, seconds=60)
    assert stream(mortal.grpc_url, tensors(cases["one image"]))[0] == cases["one image"].expected


def test_running_streams_end_before_the_server_does_and_nothing_is_left(
    reference: Reference, cases: dict[str, Case]
) -> None:
    with start("--model", reference.language, "--dtype", "fp32") as process:
        words = process.stdout.readline().split()
        url, http_url = words[3], words[1].removeprefix("http://")
        prefix = guardian_of(process.pid)[1]
        expected = stream(url, tensors(cases["text"], sampling={"max_tokens": 150, "ignore_eos": True}))[0]
        with opened(url, tensors(cases["text"], sampling={"max_tokens": 150, "ignore_eos": True})) as (_, answers):
            tokens = answers.get(timeout=TIMEOUT_SECONDS)[0].as_numpy("token_ids").tolist()
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: not is_ready(http_url) and is_refused(url, tensors(cases["text"])))
            while True:
                result, error = answers.get(timeout=TIMEOUT_SECONDS)
                assert error is None
                tokens += result.as_numpy("token_ids").tolist()
                if is_final(result):
                    break
        assert tuple(tokens) == expected
        assert process.communicate(timeout=TIMEOUT_SECONDS) == ("", "")
        assert process.returncode == 0
    wait_until_gone(prefix)


def test_two_servers_on_one_machine(server: TritonServer, mortal: Any, cases: dict[str, Case]) -> None:
    assert not {server.ports.http, server.ports.grpc, server.ports.metrics} & {
        mortal.ports.http,
        mortal.ports.grpc,
        mortal.ports.metrics,
    }
    wait_for(lambda: fault(mortal.http_url) is None)
    names = ("one image", "video", "mixed", "long text")
    with ThreadPoolExecutor(8) as pool:
        urls = [url for url in (server.grpc_url, mortal.grpc_url) for _ in names]
        results = list(pool.map(lambda url, name: stream(url, tensors(cases[name]))[0], urls, names * 2))
    assert results == [cases[name].expected for name in names * 2]
