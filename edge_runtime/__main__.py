"""Command line of the device: encode, ask, inspect.

Exit codes: 0 done, 1 the server failed or is away, 2 wrong input or a damaged bundle.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import EdgeVlmError, InvalidInput, ServerError, Unavailable
from contract.sampling import Sampling
from edge_runtime.bundle import Bundle
from edge_runtime.encoder import Encoder
from edge_runtime.inspection import bundle_card, request_report
from edge_runtime.items import picture_item
from edge_runtime.pipeline import Pipeline
from edge_runtime.request import upload_bytes


def _encode(args: argparse.Namespace) -> dict[str, Any]:
    encoder = Encoder.from_bundle(args.bundle, threads=args.threads)
    manifest = encoder.bundle.manifest
    items = [picture_item(source, manifest.image, manifest.card) for source in args.media]
    started = time.perf_counter()
    embeddings = encoder.encode(items)
    encode_ms = (time.perf_counter() - started) * 1e3
    np.savez(
        args.out,
        image_embeds=embeddings.image_embeds,
        deepstack_embeds=embeddings.deepstack_embeds,
        grid_thw=embeddings.grid_thw,
    )
    rows = embeddings.image_embeds.shape
    if not args.json:
        print(
            f"{args.out}: {rows[0]} rows of {rows[1]}, {len(embeddings.deepstack_embeds)} deepstack levels, {encode_ms:.1f} ms"
        )
    return {
        "out": str(args.out),
        "rows": rows[0],
        "grid_thw": embeddings.grid_thw.tolist(),
        "encode_ms": round(encode_ms, 2),
    }


def _ask(args: argparse.Namespace) -> dict[str, Any]:
    from edge_runtime.grpc_client import GrpcClient  # needs the extra `client`

    pipeline = Pipeline(Encoder.from_bundle(args.bundle, threads=args.threads))
    sampling = Sampling(max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed)
    started = time.perf_counter()
    request = pipeline.ask(args.picture, args.question)
    encoded = time.perf_counter()
    text, num_tokens, reason, first = "", 0, "", None
    with GrpcClient(args.triton, timeout_s=args.timeout, precision=args.precision) as client:
        for delta in client.stream(request, sampling):
            first = first or time.perf_counter()
            text, num_tokens, reason = text + delta.text, num_tokens + len(delta.token_ids), delta.finish_reason
            if not args.json:
                print(delta.text, end="", flush=True)
    if not args.json:
        print()
    return {
        "question": args.question,
        "answer": text,
        "finish_reason": reason,
        "num_tokens": num_tokens,
        "encode_ms": round((encoded - started) * 1e3, 2),
        "ttft_ms": round(((first or encoded) - encoded) * 1e3, 2),
        "upload_bytes": upload_bytes(request.tensors(sampling, args.precision)),
        "edge_has_torch": "torch" in sys.modules,
    }


def _inspect(args: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.load(args.bundle)
    report = {"bundle": bundle_card(bundle)}
    if args.messages:
        try:
            messages = json.loads(args.messages.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{args.messages} is no JSON list of messages: {error}") from error
        request = Pipeline(Encoder.from_bundle(bundle, threads=args.threads)).request(messages)
        card = bundle.manifest.card
        report |= request_report(request, card.image_token_id, card.video_token_id)
    if not args.json:
        for name, value in report.items():
            print(f"{name}: {json.dumps(value, indent=2) if isinstance(value, dict) else value}")
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge_runtime", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--bundle", default=os.environ.get("EDGE_VLM_BUNDLE", "bundle"), help="folder python -m export.vision wrote ($EDGE_VLM_BUNDLE, else ./bundle)")  # fmt: skip
    common.add_argument("--threads", type=int, default=0, help="cores for the tower, 0 for all")
    common.add_argument("--json", action="store_true", help="print one JSON object instead of text")

    encode = verbs.add_parser("encode", parents=[common], help="encode pictures to an .npz file")
    encode.add_argument("media", nargs="+", help="picture files")
    encode.add_argument("--out", type=Path, required=True, help="file with image_embeds, deepstack_embeds, grid_thw")
    encode.set_defaults(run=_encode)

    ask = verbs.add_parser("ask", parents=[common], help="ask a served model about a picture")
    ask.add_argument("picture")
    ask.add_argument("question")
    ask.add_argument("--triton", default=os.environ.get("EDGE_VLM_TRITON", "127.0.0.1:8001"), help="host:port of Triton's gRPC ($EDGE_VLM_TRITON)")  # fmt: skip
    ask.add_argument("--max-tokens", type=int, default=256)
    ask.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    ask.add_argument("--seed", type=int)
    ask.add_argument("--precision", choices=["fp16", "fp32"], default="fp16", help="type the embeddings travel in")
    ask.add_argument("--timeout", type=float, default=60.0, help="longest wait for the next piece, in seconds")
    ask.set_defaults(run=_ask)

    inspect = verbs.add_parser(
        "inspect", parents=[common], help="show a bundle, or the tokens and embeddings of messages"
    )
    inspect.add_argument("--messages", type=Path, help="JSON file with a list of chat messages")
    inspect.set_defaults(run=_inspect)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        result = args.run(args)
    except EdgeVlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, ServerError | Unavailable) else 2
    except KeyboardInterrupt:
        return 130
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
