"""The application around the endpoints: what the gateway says of itself, and which origins and hosts may ask."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_runtime.gateway.about import About
from edge_runtime.gateway.door import Door, Endpoint
from edge_runtime.gateway.failures import Failure, failure_of
from edge_runtime.gateway.hosts import HostGuard
from edge_runtime.gateway.settings import Settings

View = Callable[[Request], Awaitable[Response]]
ErrorBody = Callable[[Failure], dict[str, Any]]


def application(
    settings: Settings,
    door: Door,
    about: About,
    endpoints: Mapping[str, Endpoint],
    close: Callable[[], Awaitable[None]],
    views: Mapping[str, View] | None = None,
    error_bodies: Mapping[str, ErrorBody] | None = None,
) -> Starlette:
    """The application.

    Args:
        endpoints: by path; all take POST.
        close: ends what the endpoints hold; called once, at the end.
        views: more functions of `about`, by path; all take GET.
        error_bodies: how errors look that no endpoint answers, such as an unknown path, by how the path begins.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await close()
        door.close()

    async def answer_failure(request: Request, error: Exception) -> Response:
        failure = failure_of(error)
        bodies = (body for begin, body in (error_bodies or {}).items() if request.scope["path"].startswith(begin))
        return failure.response(next(bodies, Failure.body)(failure))

    middleware = []
    if settings.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.allowed_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
            )
        )
    if settings.allowed_hosts:
        middleware.append(Middleware(HostGuard, is_allowed=settings.allowed_hosts.__contains__))
    seen: dict[str, View] = {
        "/health": about.health,
        "/ready": about.ready,
        "/metrics": about.metrics,
        "/v1/models": about.models,
        "/v1/models/{name:path}": about.model,
        "/version": about.version,
    }
    return Starlette(
        routes=[
            *[Route(path, view) for path, view in (seen | dict(views or {})).items()],
            *[Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()],
        ],
        middleware=middleware,
        exception_handlers={HTTPException: answer_failure, Failure: answer_failure, Exception: answer_failure},
        lifespan=lifespan,
    )
