"""serve: an OpenAI-compatible gateway on this device. It encodes pictures; answers come from the server behind it."""

import argparse
import ipaddress
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.embedder import NAME as EMBEDDER
from contract.errors import InvalidInput, MissingExtra
from contract.names import GATEWAY_NAMES
from contract.sampling import Sampling
from edge_runtime.clients.address import is_url
from edge_runtime.commands.device import open_encoder_aloud
from edge_runtime.commands.server import JSON_READY, add_server_arguments, connection_options, port
from edge_runtime.embedder import Embedder
from edge_runtime.items.workers import DecodingLimits
from edge_runtime.media.access import MediaAccess
from edge_runtime.media.fetch import Fetcher
from edge_runtime.pipeline import DEVICE_MAX_PIXELS, Pipeline
from edge_runtime.reuse.embedding_cache import EmbeddingCache

if TYPE_CHECKING:
    from edge_runtime.gateway.settings import Settings


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from error


def _names(text: str) -> list[str]:
    """A JSON list of texts, as vLLM takes it."""
    value = _json(text)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON list of texts: write it as \'["one", "two"]\'')
    return value


def _object(text: str) -> dict[str, Any]:
    value = _json(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object: write it as '{{\"name\": 1}}'")
    return value


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither address nor network: {error}") from error
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s: this machine only)")  # fmt: skip
    parser.add_argument("--port", type=port, default=8080, help="port to listen at (default %(default)s, 0 for a free one)")  # fmt: skip
    add_server_arguments(parser)
    parser.add_argument("--max-pixels", type=int, default=DEVICE_MAX_PIXELS, help="most pixels of a picture or frame after resizing (default %(default)s; 0: what the bundle allows)")  # fmt: skip
    parser.add_argument("--max-tiles", type=int, metavar="N", help="refuse pictures of more tiles (default: what the checkpoint's processor makes at most)")  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", help="folder that keeps embeddings between runs, up to 1 GiB")
    chat = parser.add_argument_group("answers")
    chat.add_argument("--served-model-name", nargs="+", default=list(GATEWAY_NAMES), metavar="NAME", help=f"names that requests may give as model; answers carry the first (default {' '.join(GATEWAY_NAMES)})")  # fmt: skip
    chat.add_argument("--override-generation-config", type=_object, default={}, metavar="JSON", help="sampling where a request is silent; without it greedy, 1024 tokens")  # fmt: skip
    doors = parser.add_argument_group("who may ask, and what is read")
    doors.add_argument("--api-key", nargs="+", default=[], metavar="KEY", help="one of them must come with every request to /v1 ($EDGE_VLM_API_KEY)")  # fmt: skip
    doors.add_argument("--allowed-origins", type=_names, default=[], metavar="JSON", help="origins of pages that may read answers (default: none)")  # fmt: skip
    doors.add_argument("--allowed-media-domains", nargs="+", metavar="HOST", help="hosts whose http(s) URLs are read (default: none)")  # fmt: skip
    doors.add_argument("--allowed-local-media-path", default="", metavar="DIR", help="folder whose files file:// URLs may name (default: none)")  # fmt: skip
    doors.add_argument("--trusted-proxies", nargs="+", type=_network, default=[], metavar="ADDRESS", help="proxies, or networks of them, whose X-Forwarded-For says who is asking (default: none)")  # fmt: skip
    doors.add_argument("--strict", action="store_true", help="refuse fields of a body that nobody knows; without it they are ignored and named in X-Ignored-Fields")  # fmt: skip
    doors.add_argument("--ssl-keyfile", metavar="FILE", help="private key for TLS, PEM")
    doors.add_argument("--ssl-certfile", metavar="FILE", help="its certificates, PEM")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--limit-mm-per-prompt", type=_object, default={}, metavar="JSON", help='pictures and videos of a request (default {"image": 16, "video": 2})')  # fmt: skip
    limits.add_argument("--max-requests-per-minute", type=int, default=0, metavar="N", help="of each key, or of each address without keys (default: any number)")  # fmt: skip
    limits.add_argument("--max-concurrency", type=int, default=64, metavar="N", help="requests at once; one client holds three quarters of them at most (default %(default)s)")  # fmt: skip
    limits.add_argument("--max-answers-per-client", type=int, default=0, metavar="N", help="answers that the server writes for one client at once (default: seven eighths of its places)")  # fmt: skip
    limits.add_argument("--max-waiting", type=int, default=32, metavar="N", help="requests that wait for the encoder (default %(default)s)")  # fmt: skip
    limits.add_argument("--max-decode-seconds", type=float, default=DecodingLimits.max_seconds, metavar="S", help="time for one picture or video (default %(default)g)")  # fmt: skip
    limits.add_argument("--max-decode-bytes", type=int, default=DecodingLimits.max_bytes, metavar="N", help="memory for one picture or video (default %(default)s)")  # fmt: skip
    limits.add_argument("--num-decoders", type=int, default=DecodingLimits.num_workers, metavar="N", help="processes that decode; a caller holds half of them at most (default %(default)s)")  # fmt: skip
    limits.add_argument("--max-body-bytes", type=int, default=64 << 20, metavar="N", help="size of a request (default %(default)s)")  # fmt: skip
    limits.add_argument("--max-pending-bytes", type=int, default=256 << 20, metavar="N", help="size of all requests being read or encoded (default %(default)s)")  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        BundleError, InvalidInput: the bundle cannot be opened, or an argument is wrong.
        MissingExtra: the extra `serve` is not installed.
    """
    try:
        import uvicorn  # noqa: F401
        from starlette.applications import Starlette  # noqa: F401
    except ImportError as error:
        raise MissingExtra("the gateway", "serve") from error
    from edge_runtime.clients.async_grpc_client import AsyncGrpcClient
    from edge_runtime.clients.async_http_client import AsyncHttpClient
    from edge_runtime.gateway.app import create_app
    from edge_runtime.gateway.device_embeddings import create_embedder_app
    from edge_runtime.gateway.server import serve

    settings = _settings(args)
    domains = args.allowed_media_domains
    fetch = None if domains is None else Fetcher(allowed_media_domains=frozenset(domains))
    decoding = DecodingLimits(args.max_decode_seconds, args.max_decode_bytes, args.num_decoders)
    where = (args.host, args.port, (args.ssl_keyfile, args.ssl_certfile), JSON_READY if args.json else "{url}")
    if (Path(args.bundle) / EMBEDDER).exists():
        embedder = Embedder.from_bundle(
            args.bundle, threads=args.threads, provider=args.provider, low_memory=args.low_memory
        )
        access = MediaAccess(fetch, args.allowed_local_media_path)
        serve(create_embedder_app(embedder, access, settings, decoding), *where, args.trusted_proxies)
        return
    pipeline = Pipeline(
        open_encoder_aloud(args),
        cache=EmbeddingCache(folder=args.cache),
        max_pixels=args.max_pixels or None,
        max_tiles=args.max_tiles,
        fetch=fetch,
        allowed_local_media_path=args.allowed_local_media_path,
        decoding=decoding,
    )
    kind = AsyncHttpClient if is_url(args.triton) else AsyncGrpcClient
    client = kind(args.triton, **connection_options(args))
    serve(create_app(pipeline, client, settings), *where, args.trusted_proxies)


def _settings(args: argparse.Namespace) -> "Settings":
    """What the gateway allows its callers.

    Raises:
        InvalidInput: limit_mm_per_prompt names another kind or holds no whole number, or a value is out of its range.
    """
    from edge_runtime.gateway.hosts import LOOPBACK_NAMES, is_loopback  # need the extra `serve`
    from edge_runtime.gateway.settings import DEFAULTS, Settings

    keys = tuple(args.api_key or filter(None, [os.environ.get("EDGE_VLM_API_KEY")]))
    allowed = {"image": Settings.max_images, "video": Settings.max_videos} | args.limit_mm_per_prompt
    if len(allowed) > 2 or not all(isinstance(count, int) for count in allowed.values()):
        raise InvalidInput(
            f"limit_mm_per_prompt is {args.limit_mm_per_prompt}, whole numbers for image and video are expected"
        )
    return Settings(
        served_model_names=tuple(args.served_model_name),
        defaults=Sampling.from_dict(args.override_generation_config, DEFAULTS),
        api_keys=keys,
        max_requests_per_minute=args.max_requests_per_minute,
        allowed_origins=tuple(args.allowed_origins),
        # a page of any site may make its own name mean this machine: without a key only loopback names may address it
        allowed_hosts=LOOPBACK_NAMES if is_loopback(args.host) and not keys else (),
        strict=args.strict,
        max_images=allowed["image"],
        max_videos=allowed["video"],
        max_body_bytes=args.max_body_bytes,
        max_pending_bytes=max(args.max_pending_bytes, args.max_body_bytes),
        max_concurrency=args.max_concurrency,
        max_answers_per_client=args.max_answers_per_client,
        max_waiting=args.max_waiting,
    )
