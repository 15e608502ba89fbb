"""chat: several questions about one picture or video; the device encodes and uploads it for the first question only."""

import argparse
import json
import sys
from typing import Any

from edge_runtime.commands.device import add_media_arguments, open_pipeline
from edge_runtime.commands.media import add_video_arguments, check_files, content_parts
from edge_runtime.commands.server import add_server_arguments, open_client
from edge_runtime.commands.turn import add_turn_arguments, answer
from edge_runtime.prompts.chat_template import Message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("media", help="picture or video file, folder of frames, or URL with --fetch")
    parser.add_argument("--system", help="what the model is told before everything else")
    add_server_arguments(parser)
    add_turn_arguments(parser)
    add_media_arguments(parser)
    add_video_arguments(parser)
    parser.set_defaults(run=run)


def _note(report: dict[str, Any]) -> str:
    encoded, uploaded = report["num_encoded"], report["num_uploaded"]
    work = [
        f"encoded {encoded} in {report['encode_ms']:.0f} ms" if encoded else "encoded nothing",
        f"uploaded {uploaded}" if uploaded else "uploaded nothing",
    ]
    return f"[{', '.join(work)}; sent {report['upload_bytes']} bytes, first token after {report['ttft_ms']:.0f} ms]"


def run(args: argparse.Namespace) -> None:
    """Read questions from standard input, one a line, until it ends; with --json print one object for each turn.

    Ctrl-C while an answer comes ends that answer; at the prompt it ends the chat.
    """
    messages: list[Message] = [{"role": "system", "content": args.system}] if args.system else []
    [part] = content_parts([args.media], args)
    check_files([args.media])
    pipeline, kind = open_pipeline(args), part["type"]
    noun = "picture" if kind == "image" else kind
    shown = [part | {kind: pipeline.access(part[kind], noun)}]  # resolve it once, not with every turn
    with open_client(args) as client:
        while True:
            if sys.stdin.isatty():
                print("> ", end="", file=sys.stderr, flush=True)
            if not (line := sys.stdin.readline()):
                return
            if not (question := line.strip()):
                continue
            content = [*shown, {"type": "text", "text": question}]
            turn: list[Message] = [*messages, {"role": "user", "content": content}]
            try:
                report = answer(pipeline, client, turn, args)
            except KeyboardInterrupt:
                print("\n[cancelled: this question is forgotten]", file=sys.stderr)
                continue
            messages, shown = [*turn, {"role": "assistant", "content": report["answer"]}], []
            print(json.dumps({"question": question} | report) if args.json else _note(report), flush=True)
