"""Whether the server behind the gateway can answer: it runs, serves the model, and knows this bundle's encoder."""

import asyncio
import time

from contract.errors import EdgeVlmError
from edge_runtime.clients.async_grpc_client import AsyncGrpcClient
from edge_runtime.clients.async_http_client import AsyncHttpClient

FRESH_S = 1.0  # many clients may ask: the gateway asks the server once a second at most
FACTS_S = 60.0  # what the server publishes changes only when somebody starts it anew
TIMEOUT_S = 3.0
Client = AsyncGrpcClient | AsyncHttpClient


class Triton:
    """What the server said a moment ago."""

    def __init__(self, client: Client, encoder_fingerprint: str) -> None:
        self._fingerprint = encoder_fingerprint
        self._probe = type(client)(client.url, timeout_s=TIMEOUT_S, tls=client.tls, headers=client.headers)
        self._lock = asyncio.Lock()
        self._asked_at, self._problem = -FACTS_S, "not asked yet"
        self._facts: dict[str, str] = {}

    async def problem(self) -> str:
        """Why requests would fail; "" where they would not."""
        async with self._lock:
            await self._ask(FRESH_S)
        return self._problem

    async def limit(self, name: str) -> int | None:
        """A number that the served model publishes; None where it publishes none, or has not answered yet."""
        async with self._lock:
            await self._ask(FACTS_S if self._facts else FRESH_S)
        value = self._facts.get(name, "")
        return int(value) if value.isdigit() else None

    async def close(self) -> None:
        """Close the connection for these questions."""
        await self._probe.close()

    async def _ask(self, fresh_s: float) -> None:
        if time.monotonic() - self._asked_at < fresh_s:
            return
        try:
            self._facts = await self._probe.parameters()
            theirs = self._facts.get("encoder_fingerprint")
            self._problem = "" if theirs == self._fingerprint else (
                f"the server answers for encoder {theirs!r}, this bundle is {self._fingerprint!r}"
            )  # fmt: skip
        except EdgeVlmError as error:
            self._problem = str(error)
        self._asked_at = time.monotonic()
