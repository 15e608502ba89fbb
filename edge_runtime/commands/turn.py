"""One question and its answer, printed as it arrives."""

import argparse
import os
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from contract.sampling import Sampling
from edge_runtime.chat_template import Message
from edge_runtime.pipeline import Pipeline
from edge_runtime.request import PRECISIONS, Delta

if TYPE_CHECKING:
    from edge_runtime.grpc_client import GrpcClient
    from edge_runtime.http_client import HttpClient


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no header, 'name: value' is expected")
    return name.strip(), value.strip()


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that talk to a server."""
    parser.add_argument("--triton", default=os.environ.get("EDGE_VLM_TRITON", "127.0.0.1:8001"), help="host:port of Triton's gRPC, or the http(s):// URL of its HTTP port ($EDGE_VLM_TRITON)")  # fmt: skip
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="type the embeddings travel in; int8 halves the upload and is not exact")  # fmt: skip
    parser.add_argument("--shared-memory", action="store_true", help="hand embeddings to a server on this machine in shared memory")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=60.0, help="longest wait for the next piece, in seconds")
    parser.add_argument("--deadline", type=float, help="longest time for a whole answer, in seconds")
    parser.add_argument("--retry", type=float, default=0.0, help="how long to keep trying while nobody listens, in seconds")  # fmt: skip
    parser.add_argument("--tls", action="store_true", help="encrypt the connection")
    parser.add_argument("--tls-ca", metavar="FILE", help="certificates to trust instead of the usual ones (implies --tls)")  # fmt: skip
    parser.add_argument("--header", type=_header, action="append", default=[], metavar="NAME:VALUE", help="sent with every request; may be repeated")  # fmt: skip


def open_client(args: argparse.Namespace) -> "GrpcClient | HttpClient":
    """The client of the arguments: HTTP where the address is a URL, else gRPC.

    Raises:
        MissingExtra: tritonclient is not installed.
    """
    from edge_runtime import GrpcClient, HttpClient, Tls  # need the extra `client`

    kind = HttpClient if args.triton.startswith(("http://", "https://")) else GrpcClient
    return kind(
        args.triton,
        timeout_s=args.timeout,
        precision=args.precision,
        retry_s=args.retry,
        tls=Tls(args.tls_ca) if args.tls or args.tls_ca else None,
        headers=dict(args.header),
        shared_memory=args.shared_memory,
    )


def answer(
    pipeline: Pipeline, client: "GrpcClient | HttpClient", messages: list[Message], args: argparse.Namespace
) -> dict[str, Any]:
    """Encode what is new, ask, and print the answer as it comes; leaving early cancels it on the server."""
    sampling = Sampling(max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed)
    started = time.perf_counter()
    request = pipeline.request(messages)
    encoded = time.perf_counter()
    text, num_tokens, num_input_tokens, first, last = "", 0, 0, None, Delta("")
    with closing(client.stream(request, sampling, deadline_s=args.deadline)) as deltas:
        for last in deltas:
            first = first or time.perf_counter()
            text, num_tokens = text + last.text, num_tokens + len(last.token_ids)
            num_input_tokens = max(num_input_tokens, last.num_input_tokens)
            if not args.json:
                print(last.text, end="", flush=True)
    if not args.json:
        print()
    return {
        "answer": text,
        "finish_reason": last.finish_reason,
        "num_tokens": num_tokens,
        "num_input_tokens": num_input_tokens,
        "num_encoded": request.num_encoded,
        "num_uploaded": last.num_uploaded,
        "encode_ms": round((encoded - started) * 1e3, 2),
        "ttft_ms": round(((first or encoded) - encoded) * 1e3, 2),
        "upload_bytes": last.upload_bytes,
        "edge_has_torch": "torch" in sys.modules,
    }
