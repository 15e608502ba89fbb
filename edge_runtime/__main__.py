"""Command line of the device: `edge-vlm`, or `python -m edge_runtime`.

Exit codes: 0 done; 1 the server failed, is away or too slow; 2 wrong arguments or input, a damaged bundle, or an extra that is
not installed; 130 interrupted with Ctrl-C (an answer that was coming is cancelled on the server); 141 whoever read the output
has left, as in `| head`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from contract.errors import DeadlineExceeded, EdgeVlmError, ServerError, Unavailable
from edge_runtime import __version__
from edge_runtime.commands import ask, batch, bench, chat, embed, encode, inspect, serve, ui
from edge_runtime.commands.device import add_bundle_arguments

VERBS = {
    "encode": (encode, "encode pictures and videos to a file"),
    "embed": (embed, "vectors of pictures and texts, and their cosines"),
    "ask": (ask, "ask a served model about a picture or video"),
    "batch": (batch, "the same question about many pictures or videos, one answer a line"),
    "chat": (chat, "several questions about one picture or video, one a line on standard input"),
    "inspect": (inspect, "show a bundle, or the tokens and embeddings of messages"),
    "serve": (serve, "an OpenAI-compatible gateway on this device"),
    "ui": (ui, "a page in the browser to try a model with"),
    "bench": (bench, "time loading and encoding on this device"),
}


def _parser() -> argparse.ArgumentParser:
    module = Path(sys.argv[0]).name == "__main__.py"
    parser = argparse.ArgumentParser(prog="python -m edge_runtime" if module else "edge-vlm", description=__doc__)
    parser.add_argument("--version", action="version", version=f"edge-vlm {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, (command, about) in VERBS.items():
        verb = verbs.add_parser(name, help=about, description=about[0].upper() + about[1:])
        add_bundle_arguments(verb)
        command.add_arguments(verb)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        result = args.run(args)
        if args.json and result is not None:
            print(json.dumps(result))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's own end writes there again
        return 141
    except EdgeVlmError as error:
        print(f"error: {error}", file=sys.stderr)
        if args.json:
            print(json.dumps({"error": str(error), "code": error.code}))
        return 1 if isinstance(error, ServerError | Unavailable | DeadlineExceeded) else 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
