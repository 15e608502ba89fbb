"""inspect: a bundle's card, or the token ids, grids and embedding checks of messages."""

import argparse
import json
from pathlib import Path
from typing import Any

from contract.errors import InvalidInput
from edge_runtime.bundle import Bundle
from edge_runtime.commands.device import add_media_arguments, open_pipeline
from edge_runtime.commands.inspection import bundle_card, compared, request_report, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=Path, help="JSON file with a list of chat messages")
    add_media_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Report on the bundle, and on the messages of --messages where there are some."""
    bundle = Bundle.load(args.bundle)
    report: dict[str, Any] = {"bundle": bundle_card(bundle), "compared": compared(bundle)}
    if args.messages:
        try:
            messages = json.loads(args.messages.read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidInput(f"{args.messages} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InvalidInput(f"{args.messages} is no JSON, a list of messages is expected: {error}") from error
        request = open_pipeline(args).request(messages)
        report |= request_report(request, bundle.manifest.card.pad_token_ids)
    if not args.json:
        for name, value in report.items():
            if name == "compared":
                print(
                    f"compared with transformers {bundle.manifest.libraries.get('transformers')} at export:\n{table(value)}"
                )
            else:
                print(f"{name}: {json.dumps(value, indent=2) if isinstance(value, dict) else value}")
    return report
