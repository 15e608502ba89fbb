"""The four clients as one function each: gRPC and HTTP, blocking and asyncio. The tests ask every question four times."""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

import pytest

from edge_runtime import AsyncGrpcClient, AsyncHttpClient, Delta, GrpcClient, HttpClient, Request, Sampling
from serving.triton.launcher import TritonServer
from tests.edge.grpc_door import Door
from tests.edge.http_door import HttpDoor


@dataclass(frozen=True)
class Way:
    """One of the clients."""

    kind: Any
    is_http: bool
    is_async: bool

    def url(self, server: TritonServer) -> str:
        return server.http_url if self.is_http else server.grpc_url

    def door(self, server: TritonServer, *args: Any, **how: Any) -> Any:
        return HttpDoor(server.http_url, *args, **how) if self.is_http else Door(server.grpc_url, *args, **how)

    def num_asked(self, door: Any) -> int:
        """Questions that went through a door."""
        return sum("generate_stream" in path for path in door.paths()) if self.is_http else len(door.seen)

    def ask(self, url: str, *requests: Request, sampling: Sampling, deadline_s: float | None = None, **how: Any) -> Any:
        """The pieces of one answer, or of several by one client."""
        if not self.is_async:
            with self.kind(url, **how) as client:
                answers = [list(client.stream(request, sampling, deadline_s=deadline_s)) for request in requests]
            return answers if len(answers) > 1 else answers[0]

        async def collect() -> list[list[Delta]]:
            answers: list[list[Delta]] = []
            async with self.kind(url, **how) as client:
                for request in requests:
                    answers.append([])
                    async for delta in client.stream(request, sampling, deadline_s=deadline_s):
                        answers[-1].append(delta)
            return answers

        answers = asyncio.run(collect())
        return answers if len(answers) > 1 else answers[0]

    def open(self, url: str, **how: Any) -> "Session":
        return Session(self, self.kind(url, **how))


class Session:
    """A client that stays open, whatever its kind."""

    def __init__(self, way: Way, client: Any) -> None:
        self.way, self.client = way, client

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *args: object) -> None:
        self.call("close")

    def call(self, name: str, *args: Any, **how: Any) -> Any:
        """A method that answers once."""

        async def awaited() -> Any:
            return await getattr(self.client, name)(*args, **how)

        return asyncio.run(awaited()) if self.way.is_async else getattr(self.client, name)(*args, **how)

    def ask(self, request: Request, sampling: Sampling, **how: Any) -> list[Delta]:
        async def collect() -> list[Delta]:
            return [delta async for delta in self.client.stream(request, sampling, **how)]

        return asyncio.run(collect()) if self.way.is_async else list(self.client.stream(request, sampling, **how))


WAYS = {
    "grpc": Way(GrpcClient, is_http=False, is_async=False),
    "grpc asyncio": Way(AsyncGrpcClient, is_http=False, is_async=True),
    "http": Way(HttpClient, is_http=True, is_async=False),
    "http asyncio": Way(AsyncHttpClient, is_http=True, is_async=True),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
