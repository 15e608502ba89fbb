"""What a server's metrics port says, read so that a comparison of before and after means something.

The server publishes a few times a second, so a scrape tells of the past: a count may lack requests that have been answered,
a gauge may show one that has ended. A request whose time is over when it arrives is noted in the server's own loop, where
publications are made, and reaches no engine. Once it is counted, a publication has begun after it came.
"""

import urllib.request

import numpy as np
import pytest
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from contract.names import UNARY_MODEL
from serving.metrics import PREFIX
from serving.triton.launcher import TritonServer
from tests.waiting import wait_for

LATE = 'errors_total{code="DEADLINE_EXCEEDED"}'
NUM_MARKS = 8  # more than the late requests of a test: what is still to be published of those must not pass for a mark


def published(server: TritonServer) -> dict[str, float]:
    """Every series of ours as it stands, by its name with labels and without the prefix."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    series = (line.removeprefix(PREFIX).rsplit(" ", 1) for line in lines if line.startswith(PREFIX))
    return {name: float(value) for name, value in series}


def fresh(server: TritonServer) -> dict[str, float]:
    """The same, not older than this call."""
    before = published(server)[LATE]
    text = httpclient.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"late"], object))  # (1,)
    with httpclient.InferenceServerClient(server.http_url) as client:
        for _ in range(NUM_MARKS):
            with pytest.raises(InferenceServerException, match=r"\[DEADLINE_EXCEEDED\]"):
                client.infer(UNARY_MODEL, [text], timeout=1)  # microseconds
    wait_for(lambda: published(server)[LATE] >= before + NUM_MARKS)
    return published(server)  # errors are published last, so a scrape from before may lack the rest


def at_rest(server: TritonServer) -> dict[str, float]:
    """The same, once no request runs or waits: then nothing changes but by what is asked next."""
    wait_for(lambda: not is_busy(fresh(server)), seconds=60)
    return fresh(server)  # the scrape above may have met a publication half-way


def is_busy(series: dict[str, float]) -> bool:
    return bool(series["active_requests"] or series["waiting_requests"])
