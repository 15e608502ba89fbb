"""A thousand connections and 32 uploads at once: the gateway's memory stays within the formula of docs/gateway.md."""

import base64
import http.client
import io
import json
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from serving.triton.launcher import TritonServer
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.gateway.test_leaks import held

NUM_CONNECTIONS, NUM_UPLOADS = 1_000, 32
MAX_BODY, MAX_PENDING = 4 << 20, 24 << 20
BYTES_PER_CONNECTION, COPIES_OF_A_BODY = 64 << 10, 3  # of docs/gateway.md
MARGIN = 48 << 20  # what the tower and the client of Triton take with their first requests


@contextmanager
def many_descriptors() -> Iterator[None]:
    """The gateway inherits what this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def upload(seed: int) -> bytes:
    """A question about a picture of noise, which nothing compresses: 2 MiB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (720, 720, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    return json.dumps({"messages": [{"role": "user", "content": parts}], "max_tokens": 2}).encode()


def ask(gateway: Gateway, number: int) -> int:
    """The status of one upload; each comes from an address of its own, as different callers do."""
    connection = http.client.HTTPConnection(
        gateway.host, gateway.port, timeout=120, source_address=(f"127.0.0.{number + 2}", 0)
    )
    try:
        connection.request("POST", "/v1/chat/completions", upload(number), {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_memory_is_bounded_by_the_published_formula(bundle_folder: Path, server: TritonServer) -> None:
    limits = ("--max-body-bytes", str(MAX_BODY), "--max-pending-bytes", str(MAX_PENDING))
    with (
        many_descriptors(),
        gateway_process(bundle_folder, server.grpc_url, *limits) as gateway,
        ExitStack() as stack,
        ThreadPoolExecutor(NUM_UPLOADS) as pool,
    ):
        assert ask(gateway, 100) == 200
        idle = held(gateway)["resident"]
        for _ in range(NUM_CONNECTIONS):
            stack.enter_context(socket.create_connection((gateway.host, gateway.port), 60))
        statuses = Counter(pool.map(lambda number: ask(gateway, number), range(NUM_UPLOADS)))
        assert held(gateway)["descriptors"] > NUM_CONNECTIONS
        most = idle + NUM_CONNECTIONS * BYTES_PER_CONNECTION + COPIES_OF_A_BODY * MAX_PENDING + MARGIN
        peak = gateway.peak_bytes()
        assert peak <= most, (idle, peak, most)
        assert set(statuses) <= {200, 429, 503}, statuses
        assert statuses[200] >= 4, statuses
        assert ask(gateway, 101) == 200  # served as before
