"""How requests end before their answer does: each way frees the slot, which the metrics tell, and says why."""

import http.client
import json
import queue

import pytest
from tritonclient.utils import InferenceServerException

from contract.errors import DeadlineExceeded, from_wire
from contract.limits import Limits
from contract.names import MODEL
from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.hostile.samples import anonymous_bytes
from tests.scrape import LATE, at_rest, fresh, published
from tests.serving.names import STREAMING
from tests.serving.reference import Case, Reference
from tests.serving.test_triton import LONG
from tests.serving.wire import TIMEOUT_SECONDS, grpcclient, httpclient, inputs, is_final, opened, stream, tensors, unary
from tests.waiting import wait_for


@STREAMING
def test_a_closed_http_stream(server: TritonServer, model: str) -> None:
    before = at_rest(server)["cancelled_requests_total"]
    connection = http.client.HTTPConnection(server.http_url, timeout=TIMEOUT_SECONDS)
    body = {"text_input": "Tell me something.", "sampling_parameters": json.dumps(LONG)}
    connection.request("POST", f"/v2/models/{model}/generate_stream", json.dumps(body))
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    assert fresh(server)["cancelled_requests_total"] == before
    answer.close()
    connection.close()
    assert at_rest(server)["cancelled_requests_total"] == before + 1


@STREAMING
def test_a_deadline_of_a_stream(server: TritonServer, cases: dict[str, Case], model: str) -> None:
    before = at_rest(server)["cancelled_requests_total"]
    values = tensors(cases["text"], sampling=LONG)
    tokens, _, reason = stream(server.grpc_url, values, model, timeout=1_000_000)  # microseconds
    assert (reason, 0 < len(tokens) < LONG["max_tokens"]) == ("cancelled", True)
    assert at_rest(server)["cancelled_requests_total"] == before + 1


def test_what_its_client_left_gives_its_memory_back_at_once(server: TritonServer, cases: dict[str, Case]) -> None:
    """Each takes 4 MB of keys and values, and no cycle of Python objects may hold them until the collector comes."""
    values = tensors(cases["text"], sampling={"max_tokens": 2000, "ignore_eos": True})

    def leave(count: int) -> int:
        for _ in range(count):
            with opened(server.grpc_url, values) as (_, answers):
                answers.get(timeout=TIMEOUT_SECONDS)
        at_rest(server)
        return anonymous_bytes(server.shm_prefix)[MODEL]

    before = leave(20)
    assert leave(150) - before < 4 << 20


def test_a_client_that_gives_up_waiting(server: TritonServer, cases: dict[str, Case]) -> None:
    """tritonclient's own deadline for the stream, which ends the call."""
    before = at_rest(server)["cancelled_requests_total"]
    answers: queue.Queue = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put(error), stream_timeout=0.3)
        client.async_stream_infer(MODEL, inputs(grpcclient, tensors(cases["text"], sampling=LONG)))
        while (error := answers.get(timeout=TIMEOUT_SECONDS)) is None:
            pass
        client.stop_stream()
    assert "Deadline" in str(error)
    assert at_rest(server)["cancelled_requests_total"] == before + 1


def test_too_long_in_the_queue(reference: Reference, cases: dict[str, Case]) -> None:
    limits = Limits(max_active=1, max_queue_seconds=0.3)
    short = tensors(cases["one image"])
    with TritonServer(settings(reference.language, limits, dtype="fp32")) as narrow:
        with opened(narrow.grpc_url, tensors(cases["text"], sampling=LONG)) as (_, answers):
            answers.get(timeout=TIMEOUT_SECONDS)
            with pytest.raises(InferenceServerException) as streamed:
                stream(narrow.grpc_url, short)
            assert isinstance(from_wire(streamed.value.message()), DeadlineExceeded)
            with pytest.raises(InferenceServerException) as refused:
                unary(narrow.http_url, short, httpclient)
            assert refused.value.status() == "503"
            assert isinstance(from_wire(refused.value.message()), DeadlineExceeded)
            wait_for(lambda: published(narrow)[LATE] == 2)
            while not answers.empty():
                result, error = answers.get()
                assert error is None  # the running one was not disturbed
                assert not is_final(result)
        at_rest(narrow)
        assert stream(narrow.grpc_url, short)[0] == cases["one image"].expected
