"""ui: a page in the browser, to try a model with pictures, the webcam and videos."""

import argparse
import os
import signal

from contract.errors import InvalidInput, MissingExtra
from edge_runtime.commands.device import add_media_arguments, open_encoder_aloud, open_pipeline
from edge_runtime.commands.server import JSON_READY, add_server_arguments, open_client, port
from edge_runtime.items.workers import DecodingLimits
from edge_runtime.ui.upload_folder import UploadFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s: this machine only)")  # fmt: skip
    parser.add_argument("--port", type=port, default=7860, help="port to listen at (default %(default)s, 0 for a free one from 7860 on)")  # fmt: skip
    parser.add_argument("--allowed-hosts", nargs="+", default=[], metavar="NAME", help="names that browsers may know this machine by, beside its own")  # fmt: skip
    add_server_arguments(parser)
    add_media_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C, SIGTERM or the end of its terminal.

    Raises:
        BundleError, InvalidInput: the bundle cannot be opened, or the port is taken.
        MissingExtra: the extra `ui` is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # gradio reads it at its import
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that they end the block below, too
    with UploadFolder() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder.path)  # gradio reads it then, too: uploads lie in their own folder
        try:
            from edge_runtime.ui.page import create_page
            from edge_runtime.ui.server import serve
            from edge_runtime.ui.uploads import Uploads
        except ImportError as error:
            raise MissingExtra("the page", "ui") from error
        decoding = DecodingLimits(num_workers=4)  # visitors count as one client, which holds half
        pipeline = open_pipeline(args, decoding, open_encoder_aloud(args))
        page = create_page(pipeline, open_client(args), args.triton, Uploads(folder.path), args.threads)
        ready = JSON_READY if args.json else "ready {url}"
        try:
            serve(page, args.host, args.port, ready, args.allowed_hosts, folder.tidy)
        except OSError as error:
            where = f"{args.host}:{args.port}"
            raise InvalidInput(
                f"the page cannot listen at {where}: choose another --port, or a --host of this machine"
            ) from error
        finally:
            pipeline.close()
