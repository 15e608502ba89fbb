"""One question and its answer: what the device makes of it, and what the server says."""

import argparse
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contract.card import ModelCard
from contract.sampling import Sampling
from edge_runtime.items.jpeg import jpeg_bytes
from edge_runtime.pipeline import Pipeline
from edge_runtime.prompts.chat_template import Message
from edge_runtime.request import Delta, Request
from edge_runtime.reuse.reusing_encoder import PreparedItem

if TYPE_CHECKING:
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient


def add_turn_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that ask."""
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="longest answer (default %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0, the default, is greedy")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same answer")
    parser.add_argument("--deadline", type=float, metavar="S", help="longest time for a whole answer, in seconds")


@dataclass(frozen=True)
class Question:
    """A question that is ready to travel, the media in it, and the milliseconds that this device took to make it."""

    request: Request
    prepared: list[PreparedItem]
    encode_ms: float


def make_question(pipeline: Pipeline, messages: list[Message]) -> Question:
    """Encode what is new.

    Raises:
        InvalidInput, MediaError, MissingExtra: as Pipeline.request.
    """
    started = time.perf_counter()
    prepared = pipeline.prepare(messages)
    request = pipeline.request(messages, prepared=prepared)
    return Question(request, prepared, (time.perf_counter() - started) * 1e3)


def answer(
    pipeline: Pipeline, client: "GrpcClient | HttpClient", messages: list[Message], args: argparse.Namespace
) -> dict[str, Any]:
    """Ask, and print the answer while it comes, except with --json; returns what `answer_to` returns."""
    question = make_question(pipeline, messages)
    told = answer_to(question, client, pipeline.encoder.bundle.manifest.card, args, is_shown=not args.json)
    if not args.json:
        print()
    return told


def answer_to(
    question: Question, client: "GrpcClient | HttpClient", card: ModelCard, args: argparse.Namespace, is_shown: bool
) -> dict[str, Any]:
    """The answer and what it cost; an exception in between cancels it on the server.

    fallback says why the codec is not the precision asked for; None where it is.
    jpeg_bytes are the bytes of the same pixels as JPEG of quality 90; None unless every picture and video travelled.
    """
    request, prepared = question.request, question.prepared
    sampling = Sampling(max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed)
    text, num_tokens, num_input_tokens, first, last = "", 0, 0, None, Delta("")
    sent = time.perf_counter()
    with closing(client.stream(request, sampling, deadline_s=args.deadline)) as deltas:
        for last in deltas:
            first = first or time.perf_counter()
            text, num_tokens = text + last.text, num_tokens + len(last.token_ids)
            num_input_tokens = max(num_input_tokens, last.num_input_tokens)
            if is_shown:
                print(last.text, end="", flush=True)
    sizes = [jpeg_bytes(one.item, card) for one in prepared] if last.num_uploaded == len(prepared) else []
    as_jpeg = sum(size for size in sizes if size is not None) if sizes and None not in sizes else None
    return {
        "answer": text,
        "finish_reason": last.finish_reason,
        "num_tokens": num_tokens,
        "num_input_tokens": num_input_tokens,
        "num_encoded": request.num_encoded,
        "ran": list(request.ran),
        "num_uploaded": last.num_uploaded,
        "encode_ms": round(question.encode_ms, 2),
        "ttft_ms": round(((first or sent) - sent) * 1e3, 2),
        "codec": last.precision if last.num_uploaded else None,
        "fallback": last.fallback or None,
        "upload_bytes": last.upload_bytes,
        "jpeg_bytes": as_jpeg,
        "upload_to_jpeg": round(last.upload_bytes / as_jpeg, 2) if as_jpeg else None,
        "edge_has_torch": "torch" in sys.modules,
    }
