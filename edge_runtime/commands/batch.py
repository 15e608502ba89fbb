"""batch: the same question about many pictures or videos; the device encodes the next one while an answer streams."""

import argparse
import json
import sys
import time
from functools import partial
from typing import Any

from contract.errors import InvalidInput, MediaError
from edge_runtime.ahead import made_ahead
from edge_runtime.commands.device import add_media_arguments, open_pipeline
from edge_runtime.commands.media import add_video_arguments, content_parts, question_about
from edge_runtime.commands.server import add_server_arguments, open_client
from edge_runtime.commands.turn import add_turn_arguments, answer_to, make_question


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question")
    parser.add_argument("media", nargs="+", help="picture or video files, folders of frames, or URLs with --fetch")
    add_server_arguments(parser)
    add_turn_arguments(parser)
    add_media_arguments(parser)
    add_video_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Ask about each, in order. One line each: name and answer, or with --json what `ask --json` prints.

    Raises:
        InvalidInput: there is a picture or video without an answer; its line says why, and the others have theirs.
            Or an option is for videos, and there is none.
        Unavailable, DeadlineExceeded, ServerError, NotFound: as the clients; the rest is not asked.
    """
    chats = [question_about(part, args.question) for part in content_parts(args.media, args)]
    pipeline = open_pipeline(args)
    started, num_failed = time.perf_counter(), 0
    with open_client(args) as client:
        made = made_ahead(partial(make_question, pipeline), chats)
        for number, (source, question) in enumerate(zip(args.media, made, strict=True), 1):
            try:
                told = answer_to(question.result(), client, pipeline.encoder.bundle.manifest.card, args, is_shown=False)
            except (InvalidInput, MediaError) as error:
                told = {"error": str(error), "code": error.code}
                num_failed += 1
            line = told.get("answer", f"error: {told.get('error')}")
            print(json.dumps({"media": source} | told) if args.json else f"{source}: {line}", flush=True)
            if sys.stderr.isatty() and not sys.stdout.isatty():
                print(f"\r{number} of {len(args.media)}", end="", file=sys.stderr, flush=True)
    if num_failed:
        raise InvalidInput(f"{num_failed} of {len(args.media)} have no answer, their lines say why")
    seconds = time.perf_counter() - started
    return {
        "num_media": len(args.media),
        "seconds": round(seconds, 3),
        "media_per_s": round(len(args.media) / seconds, 3),
    }
