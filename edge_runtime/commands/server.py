"""The server as the command line describes it: where it is, and how the client speaks to it."""

import argparse
import os
import re
from typing import TYPE_CHECKING, Any

from contract.errors import InvalidInput
from edge_runtime.clients.address import EXPECTED, check_grpc, is_url, split
from edge_runtime.encoded_item import PRECISIONS

if TYPE_CHECKING:
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

JSON_READY = '{{"url": "{url}"}}'  # what a verb that listens prints with --json, for str.format


def port(text: str) -> int:
    """A TCP port of the command line, 0 for a free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port, 0 to 65535 is expected")
    return int(text)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no header, 'name: value' is expected")
    name, value = name.strip(), value.strip()
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not (value.isascii() and value.isprintable()):
        raise argparse.ArgumentTypeError(f"{text!r} is no header: use one line of printable ASCII, 'name: value'")
    return name, value


def _address(text: str) -> str:
    try:
        split(text) if is_url(text) else check_grpc(text)
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: {EXPECTED}") from error
    return text


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that talk to a server."""
    parser.add_argument("--triton", type=_address, default=os.environ.get("EDGE_VLM_TRITON", "127.0.0.1:8001"), help="host:port of Triton's gRPC, or the http(s):// URL of its HTTP port ($EDGE_VLM_TRITON)")  # fmt: skip
    parser.add_argument("--precision", choices=(*PRECISIONS, "auto"), default="fp16", help="how the embeddings travel; int8 halves the upload and is not exact; auto chooses by the uplink (default %(default)s)")  # fmt: skip
    parser.add_argument("--quality", choices=("exact", "close", "small", "least"), default="close", help="the least that --precision auto may take (default %(default)s)")  # fmt: skip
    parser.add_argument("--shared-memory", action="store_true", help="hand embeddings to a server on this machine in shared memory")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="longest wait for the next piece, in seconds (default %(default)g)")  # fmt: skip
    parser.add_argument("--retry", type=float, default=0.0, metavar="S", help="how long to keep trying while nobody listens, in seconds")  # fmt: skip
    parser.add_argument("--tls", action="store_true", help="encrypt the connection to the server")
    parser.add_argument("--tls-ca", metavar="FILE", help="certificates to trust instead of the usual ones (implies --tls)")  # fmt: skip
    parser.add_argument("--header", type=_header, action="append", default=[], metavar="NAME:VALUE", help="sent with every request; may be repeated")  # fmt: skip


def connection_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a client, without its address.

    Raises:
        MissingExtra: tritonclient is not installed.
    """
    from edge_runtime import Tls  # needs the extra `client`

    return {
        "timeout_s": args.timeout,
        "precision": args.precision,
        "quality": args.quality,
        "retry_s": args.retry,
        "tls": Tls(args.tls_ca) if args.tls or args.tls_ca else None,
        "headers": dict(args.header),
        "shared_memory": args.shared_memory,
    }


def open_client(args: argparse.Namespace) -> "GrpcClient | HttpClient":
    """The client of the arguments: HTTP where the address is a URL, else gRPC.

    Raises:
        MissingExtra: tritonclient is not installed.
    """
    from edge_runtime import GrpcClient, HttpClient  # need the extra `client`

    kind = HttpClient if is_url(args.triton) else GrpcClient
    return kind(args.triton, **connection_options(args))
