"""Requests that Gradio cannot read: 400 and a line in the log, where Gradio answers 500 and logs a traceback.

On these paths Gradio answers an error of a handler itself, so an error that comes through is the request's own.
"""

import logging
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from contract.errors import shown
from edge_runtime.gateway.failures import Failure, is_exhausted

LOG = logging.getLogger("uvicorn.error")
PATHS = tuple(f"/gradio_api/{name}" for name in ("queue/join", "call/", "run/", "upload", "file"))


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
        is_begun = False

        async def noted(message: Any) -> None:
            nonlocal is_begun
            is_begun = is_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # Gradio's readers raise errors of any type
            if is_begun or is_exhausted(error):
                raise
            LOG.warning("%s cannot be read: %s %s", shown(scope["path"]), type(error).__name__, shown(str(error)))
            failure = Failure(400, "the page cannot read this request: send what the page itself sends")
            await failure.response()(scope, receive, send)
