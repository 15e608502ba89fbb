"""ask: one picture or video, one question, one streamed answer."""

import argparse
from typing import Any

from edge_runtime.commands.device import add_media_arguments, open_pipeline
from edge_runtime.commands.media import add_video_arguments, check_files, content_parts, question_about
from edge_runtime.commands.server import add_server_arguments, open_client
from edge_runtime.commands.turn import add_turn_arguments, answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("media", help="picture or video file, folder of frames, or URL with --fetch")
    parser.add_argument("question")
    add_server_arguments(parser)
    add_turn_arguments(parser)
    add_media_arguments(parser)
    add_video_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Ask once.

    Raises:
        BundleError, MediaError, InvalidInput: as Pipeline; or an option is for videos, and there is none.
        Unavailable, DeadlineExceeded, ServerError, NotFound: as the clients.
    """
    [part] = content_parts([args.media], args)
    check_files([args.media])
    messages = question_about(part, args.question)
    pipeline = open_pipeline(args)
    with open_client(args) as client:
        return {"question": args.question} | answer(pipeline, client, messages, args)
