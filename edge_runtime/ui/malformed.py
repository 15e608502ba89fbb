"""Requests and events that Gradio cannot read: an error and a line in the log, where Gradio logs a traceback.

A request gets 400, where Gradio answers 500: on these paths Gradio answers an error of a handler itself, so an error that
comes through is the request's own. An event gets an error that the page shows.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import gradio as gr
from starlette.types import ASGIApp, Receive, Scope, Send

from contract.errors import EdgeVlmError, shown
from edge_runtime.gateway.failures import Failure, is_exhausted

LOG = logging.getLogger("uvicorn.error")
PATHS = tuple(f"/gradio_api/{name}" for name in ("queue/join", "call/", "run/", "api/", "upload", "file"))
# of a direct call, which Gradio answers with 500 whatever its handler raised: gets True where the event is refused
REFUSALS: ContextVar[set[bool] | None] = ContextVar("REFUSALS", default=None)


def refused(what: str, error: Exception) -> gr.Error:
    """An event's error for the page, and its line in the log."""
    LOG.warning("the event %s cannot be read: %s %s", shown(what), type(error).__name__, shown(str(error)))
    if (refusals := REFUSALS.get()) is not None:
        refusals.add(True)
    return gr.Error("the page cannot read this event: reload the page", print_exception=False)


class GuardedBlocks(gr.Blocks):
    """Blocks that answer values which no component can read with an error of one line."""

    async def preprocess_data(self, block_fn: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if block_fn.fn is None:
                raise TypeError("only the browser runs it")
            return await super().preprocess_data(block_fn, *args, **kwargs)
        except gr.Error as error:
            if error.__cause__ is None or isinstance(error.__cause__, EdgeVlmError):  # ours, or a component's own words
                error.print_exception = False
                raise
            raise refused(str(block_fn.name), error) from error
        except Exception as error:  # components raise errors of any type
            if is_exhausted(error):
                raise
            raise refused(str(block_fn.name), error) from error


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Inside the block a handler reads what a browser says of its event; whatever is wrong there is a `refused` error."""
    try:
        yield
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise refused(what, error) from error


class MalformedGuard:
    """ASGI middleware that answers 400 where Gradio fails on the request itself.

    Args:
        app: the application that gets every request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATHS):
            return await self._app(scope, receive, send)
        is_begun, refusals = False, set[bool]()
        REFUSALS.set(refusals)

        async def noted(message: Any) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                if refusals and message["status"] == 500:
                    message = message | {"status": 400}
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # Gradio's readers raise errors of any type
            if is_begun or is_exhausted(error):
                raise
            LOG.warning("%s cannot be read: %s %s", shown(scope["path"]), type(error).__name__, shown(str(error)))
            failure = Failure(400, "the page cannot read this request: send what the page itself sends")
            await failure.response()(scope, receive, send)
