"""Whether the server behind can answer: it is there, its model is ready, and it knows this bundle's encoder."""

import asyncio
import time

from contract.errors import EdgeVlmError
from contract.names import MODEL
from edge_runtime.clients import grpc_call
from edge_runtime.clients.async_grpc_client import AsyncGrpcClient
from edge_runtime.clients.connection import Connection

FRESH_S = 1.0  # many may ask: the server is asked once a second at most
TIMEOUT_S = 3.0


class Triton:
    """The server as it was a moment ago."""

    def __init__(self, client: AsyncGrpcClient, encoder_fingerprint: str) -> None:
        self._fingerprint = encoder_fingerprint
        self._probe = Connection(client.url, timeout_s=TIMEOUT_S, tls=client.tls, headers=client.headers)
        self._lock = asyncio.Lock()
        self._asked_at, self._problem = -FRESH_S, "not asked yet"

    async def problem(self) -> str:
        """Why requests would fail; empty where they would not."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= FRESH_S:
                self._problem = await asyncio.to_thread(self._ask)
                self._asked_at = time.monotonic()
        return self._problem

    def _ask(self) -> str:
        try:
            with grpc_call.opened(self._probe) as client:
                headers = grpc_call.metadata(self._probe)
                if not client.is_model_ready(MODEL, headers=headers, client_timeout=TIMEOUT_S):
                    return f"model {MODEL} is not ready at {self._probe.url}"
            theirs = grpc_call.parameters(self._probe).get("encoder_fingerprint")
        except EdgeVlmError as error:
            return str(error)
        if theirs != self._fingerprint:
            return f"the server answers for encoder {theirs!r}, this bundle is {self._fingerprint!r}"
        return ""
