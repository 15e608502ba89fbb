"""vLLM's processes die under a real Triton: waiting clients get an error, a new server starts, nothing of the old one stays.

Runs with $EDGE_VLM_TEST_ENGINE=vllm only (tests/conftest.py). The engine's own words in-process are in tests/vllm.
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from contract.errors import Unavailable, from_wire
from contract.limits import Limits
from contract.names import MODEL
from serving.triton.health import fault, is_ready
from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.scrape import published
from tests.serving.reference import Case, Reference
from tests.serving.test_health import pid_of
from tests.serving.test_launcher import processes
from tests.serving.test_triton import LONG
from tests.serving.wire import TIMEOUT_SECONDS, httpclient, is_final, opened, stream, tensors, unary
from tests.waiting import wait_for

RESTART_SECONDS = 300  # three processes that import torch, on a machine that may have other work


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def core_of(server: TritonServer) -> tuple[int, int] | None:
    """vLLM's EngineCore under this server's edge_vlm, and the worker under it."""
    model, found = pid_of(server, f"{MODEL}/1"), processes()
    cores = [pid for pid, words in found.items() if words[0] == "VLLM::EngineCore" and parent(pid) == model]
    workers = [pid for pid, words in found.items() if words[0] == "VLLM::Worker" and parent(pid) in cores]
    return (cores[0], workers[0]) if cores and workers else None


@pytest.mark.parametrize("victim", [0, 1], ids=["EngineCore", "worker"])
def test_a_dead_core_is_replaced(reference: Reference, cases: dict[str, Case], victim: int) -> None:
    """A running stream ends with UNAVAILABLE in its last response, one that waits with the error; both at once."""
    long, short = tensors(cases["text"], sampling=LONG), tensors(cases["one image"])
    with TritonServer(settings(reference.language, Limits(max_active=1), dtype="fp32")) as server:
        url, core = server.grpc_url, core_of(server)
        with opened(url, long) as (_, answers), ThreadPoolExecutor(1) as pool:
            assert answers.get(timeout=TIMEOUT_SECONDS)[1] is None
            waiting = pool.submit(unary, server.http_url, short, httpclient)
            wait_for(lambda: published(server)["waiting_requests"] == 1)
            os.kill(core[victim], signal.SIGKILL)
            while True:
                result, error = answers.get(timeout=TIMEOUT_SECONDS)
                assert error is None
                if is_final(result):
                    break
            assert result.as_numpy("finish_reason")[0] == b"error"
            assert isinstance(from_wire(result.as_numpy("error")[0].decode()), Unavailable)
            with pytest.raises(InferenceServerException) as refused:
                waiting.result(TIMEOUT_SECONDS)
            assert isinstance(from_wire(refused.value.message()), Unavailable)
        wait_for(lambda: not is_ready(server.http_url), seconds=60)
        wait_for(lambda: fault(server.http_url) is None, seconds=RESTART_SECONDS)
        assert stream(url, short)[0] == cases["one image"].expected
        assert not {*core} & {*processes()}
        assert core_of(server) is not None
        assert server.poll() is None
