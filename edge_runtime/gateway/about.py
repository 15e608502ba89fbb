"""The endpoints at which the gateway says what it is: whether it runs, its figures, and the names of its models."""

from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_runtime import __version__
from edge_runtime.gateway import ollama
from edge_runtime.gateway.callers import Callers
from edge_runtime.gateway.chat_request import check_model
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.metrics import Metrics
from edge_runtime.gateway.settings import Settings


class Server(Protocol):
    """Who computes the answers."""

    async def problem(self) -> str:
        """Why requests would fail; "" where they would not."""

    async def limit(self, name: str) -> int | None:
        """A number that the model publishes; None where it publishes none."""


class About:
    """One method for each endpoint."""

    def __init__(self, settings: Settings, callers: Callers, metrics: Metrics, server: Server) -> None:
        self._settings, self._callers, self._metrics, self._server = settings, callers, metrics, server

    async def health(self, request: Request) -> Response:
        """Say that the gateway runs, whatever the server behind it does."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Say whether the server behind the gateway answers."""
        problem = await self._server.problem()
        self._metrics.triton_ready.set(not problem)
        if problem:
            raise Failure(503, problem, code="not_ready")
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """The figures, as Prometheus reads them."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def version(self, request: Request) -> Response:
        """The version of the package."""
        return JSONResponse({"version": __version__})

    async def models(self, request: Request) -> Response:
        """All names under which the gateway serves its model."""
        self._callers.key(request)
        length = await self._server.limit("max_prompt_tokens")
        names = self._settings.served_model_names
        return JSONResponse({"object": "list", "data": [_model(name, length) for name in names]})

    async def tags(self, request: Request) -> Response:
        """The same names in Ollama's form."""
        self._callers.key(request)
        return JSONResponse(ollama.tags(self._settings.served_model_names))

    async def model(self, request: Request) -> Response:
        """One of these names."""
        self._callers.key(request)
        check_model(name := request.path_params["name"], self._settings)
        return JSONResponse(_model(name, await self._server.limit("max_prompt_tokens")))


def _model(name: str, max_model_len: int | None) -> dict[str, object]:
    facts = {"id": name, "object": "model", "created": 0, "owned_by": "edge-vlm"}
    return facts | ({} if max_model_len is None else {"max_model_len": max_model_len})
