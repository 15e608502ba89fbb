"""Bodies of many entries: one caller holds a share of what is on the server at once."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from edge_runtime.gateway.body import Bodies, Held
from edge_runtime.gateway.callers import Callers
from edge_runtime.gateway.door import Door
from edge_runtime.gateway.embeddings import read_embeddings
from edge_runtime.gateway.exchange import Exchange
from edge_runtime.gateway.kinds import Kind
from edge_runtime.gateway.pooled import OF_ONE, Pooled
from edge_runtime.gateway.preparation import Prepared
from edge_runtime.gateway.settings import Settings
from edge_runtime.request import Delta, Request


class Server:
    """The device and the server: a prompt is its token ids, and an answer waits until the test opens the gate."""

    def __init__(self) -> None:
        self.begun, self.gate = list[int](), asyncio.Event()

    async def prompt(self, ids: tuple[int, ...]) -> Prepared:
        return Prepared(Request(np.array(ids, np.int64), (), ""))

    async def limit(self, name: str) -> None:
        return None

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        self.begun.append(int(request.input_ids[0]))
        await self.gate.wait()
        yield Delta("", pooled=(1.0, 0.0))


def test_one_callers_many_bodies_leave_places_to_another() -> None:
    async def run() -> None:
        server, settings, kind = cast(Any, Server()), Settings(), Kind(read_embeddings, None)
        door, bodies = Door(settings, Callers(settings), lambda: 0), Bodies(settings)
        card = cast(Any, SimpleNamespace(hidden_size=2, image_token_id=1, video_token_id=2))
        pooled = Pooled(card, server, settings, door, server, server)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        def asked(caller: bytes, token: int, count: int) -> asyncio.Task[None]:
            body = bytearray(b'{"input":[%s]}' % b",".join([b"[%d]" % token] * count))
            exchange = Exchange(kind, {"type": "http"}, receive, send)
            return asyncio.create_task(pooled.answer(kind, body, Held(bodies, caller), exchange, caller))

        async def settled(count: int) -> None:
            while len(server.begun) < count:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)  # more would begin now

        many = [asked(b"many", 7, 32) for _ in range(8)]
        await settled(OF_ONE)
        assert server.begun == [7] * OF_ONE
        one = asked(b"one", 5, 1)
        await settled(OF_ONE + 1)
        assert server.begun == [7] * OF_ONE + [5]
        server.gate.set()
        await asyncio.gather(one, *many)
        assert (server.begun.count(7), len(server.begun), bodies.num_bytes) == (256, 257, 0)
        door.close()

    asyncio.run(asyncio.wait_for(run(), 12))
