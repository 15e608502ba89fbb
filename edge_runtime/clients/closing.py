"""`with` and `async with` for the clients: the end of the block calls their `close`."""

from types import TracebackType
from typing import Protocol, TypeVar

from edge_runtime.clients.idle import Closable

T = TypeVar("T")


class Awaitable(Protocol):
    """An object with a `close` to await."""

    async def close(self) -> None: ...


class Blocking:
    """A client with a `close` to call."""

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self: Closable, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Awaited:
    """A client with a `close` to await."""

    async def __aenter__(self: T) -> T:
        return self

    async def __aexit__(
        self: Awaitable, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
