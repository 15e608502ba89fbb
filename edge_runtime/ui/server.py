"""Serves the page to browsers of this machine, or of the names that the caller allows."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from edge_runtime.gateway.hosts import LOOPBACK_NAMES, HostGuard, is_loopback, is_own_name
from edge_runtime.ui.malformed import MalformedGuard

TIDY_SECONDS = 5.0
SANS, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # local fonts: the page fetches none
CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def serve(
    blocks: gr.Blocks,
    host: str,
    port: int,
    ready: str,
    allowed_hosts: Sequence[str] = (),
    tidy: Callable[[], None] = lambda: None,
) -> None:
    """Serve until KeyboardInterrupt.

    Args:
        host, port: where the page listens; port 0 takes a free one from 7860 on.
        ready: the line that this call prints once a browser can open the page; the address replaces `{url}`.
        allowed_hosts: further names by which a browser may address this machine.
        tidy: this call runs it every TIDY_SECONDS.
    """

    def is_allowed(name: str) -> bool:
        return name in LOOPBACK_NAMES or name in allowed_hosts or (not is_loopback(host) and is_own_name(name))

    _, url, _ = blocks.launch(
        server_name=host,
        server_port=port or None,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        pwa=False,
        footer_links=[],
        max_file_size="200mb",
        app_kwargs={
            "middleware": [Middleware(HostGuard, is_allowed=is_allowed, same_origin=True), Middleware(MalformedGuard)]
        },
        css=CSS,
        theme=gr.themes.Base(primary_hue="teal", font=SANS, font_mono=MONO).set(
            body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400"
        ),
    )
    try:
        print(ready.format(url=url), flush=True)
        tidied = time.monotonic()
        while True:
            time.sleep(0.2)  # a longer sleep would go on where the signal comes just before it
            if time.monotonic() - tidied > TIDY_SECONDS:
                tidy()
                tidied = time.monotonic()
    finally:
        blocks.close(verbose=False)
