"""The page: media on the left, the chat in the middle, costs and cards on the right; one column on a phone.

Everything it shows comes from this device: no font, script or count goes to anybody else.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.middleware import Middleware

from contract.errors import EdgeVlmError
from contract.sampling import Sampling
from edge_runtime.gateway.hosts import LOOPBACK_NAMES, HostGuard, is_loopback, is_own_name
from edge_runtime.pipeline import Pipeline
from edge_runtime.ui import panel
from edge_runtime.ui.conversation import Conversation, Media
from edge_runtime.ui.uploads import PictureInput, Uploads, VideoInput

if TYPE_CHECKING:
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

TITLE = "edge-vlm"
SANS, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # of this machine: nothing is fetched
CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
SWITCH_THEME = "() => document.body.classList.toggle('dark')"
History = list[dict[str, Any]]


class Page:
    """What the page's events do. One for all visitors; what belongs to a visitor is in the Conversation."""

    def __init__(self, pipeline: Pipeline, client: "GrpcClient | HttpClient", url: str) -> None:
        self._pipeline, self._client, self._url = pipeline, client, url

    def server(self) -> str:
        """The server's card, or why there is none."""
        try:
            return panel.server_card(self._url, self._client.parameters())
        except EdgeVlmError as error:
            return panel.failure(error)

    def ask(
        self,
        question: str,
        picture: str | None,
        video: str | None,
        max_tokens: float,
        temperature: float,
        conversation: Conversation,
    ) -> Iterator[tuple[str, History, str, Conversation]]:
        """Yields the text box, the chat, the costs and the conversation as the answer grows."""
        if not question.strip():
            yield question, history(conversation), gr.skip(), conversation
            return
        shown = [Media("image", Path(picture))] if picture else []
        shown += [Media("video", Path(video))] if video else []
        begun = [*history(conversation), *_asked(question, conversation.new(shown))]
        yield "", [*begun, {"role": "assistant", "content": "…"}], panel.EMPTY, conversation
        try:
            sampling = Sampling(max_tokens=int(max_tokens), temperature=temperature)
            for turn in conversation.ask(self._pipeline, self._client, question, shown, sampling):
                answer = {"role": "assistant", "content": turn.text or "…"}
                yield "", [*begun, answer], panel.costs(turn, self._url), conversation
        except EdgeVlmError as error:
            answer = {"role": "assistant", "content": panel.failure(error)}
            yield question, [*begun, answer], panel.EMPTY, conversation

    def stop(self, question: str, conversation: Conversation) -> tuple[str, History, Conversation]:
        """Keep what can be read of the answer; a question that got none comes back into its box."""
        unanswered = conversation.settle()
        return question or unanswered, history(conversation), conversation


def history(conversation: Conversation) -> History:
    """The chat as Gradio draws it. This page draws it from its own conversation, never from what a browser sends back."""
    drawn: History = []
    for said in conversation.said:
        drawn += [*_asked(said.question, said.media), {"role": "assistant", "content": said.answer}]
    return drawn


def _asked(question: str, media: Sequence[Media]) -> History:
    files: History = [{"role": "user", "content": {"path": str(one.path)}} for one in media]
    return [*files, {"role": "user", "content": question}]


def create_page(
    pipeline: Pipeline, client: "GrpcClient | HttpClient", url: str, uploads: Uploads, threads: int = 0
) -> gr.Blocks:
    """The page over one bundle and one server at `url`; files come from `uploads` only."""
    page = Page(pipeline, client, url)
    blocks = gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600))
    with blocks:
        conversation = gr.State(lambda: Conversation())  # made anew for each visitor
        with gr.Row(elem_id="head"):
            gr.HTML(f"<h1>{TITLE}</h1><p>Pictures stay on this device; the server sees embeddings.</p>")
            theme = gr.Button("Dark / light", size="sm", elem_id="theme", scale=0)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=3, min_width=280):
                with gr.Tab("Picture"):
                    picture = PictureInput(
                        type="filepath", image_mode=None, sources=["upload", "webcam", "clipboard"],
                        label="Picture", elem_id="picture", height=280,
                    )  # fmt: skip
                with gr.Tab("Video"):
                    video = VideoInput(sources=["upload", "webcam"], label="Video", elem_id="video", height=280)
                with gr.Accordion("Answer", open=False):
                    max_tokens = gr.Slider(1, 2048, 256, step=1, label="Most tokens")
                    temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature (0: the likeliest)")
            with gr.Column(scale=5, min_width=300):
                chat = gr.Chatbot(elem_id="chat", height=440, show_label=False, buttons=["copy"], feedback_options=None)
                with gr.Row():
                    question = gr.Textbox(
                        placeholder="Ask about the picture", show_label=False, elem_id="question", scale=6, max_lines=4
                    )
                    send = gr.Button("Ask", variant="primary", elem_id="send", scale=1, min_width=70)
                    stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=70)
                again = gr.Button("New conversation", size="sm", elem_id="again")
            with gr.Column(scale=3, min_width=280):
                gr.HTML("<h2>This turn</h2>")
                costs = gr.HTML(panel.EMPTY, elem_id="costs")
                with gr.Accordion("Server", open=True):
                    server = gr.HTML(elem_id="server")
                with gr.Accordion("Bundle on this device", open=False):
                    gr.HTML(panel.bundle_card(pipeline.encoder.bundle.manifest, threads), elem_id="bundle")
        picture.uploads = video.uploads = uploads
        inputs = [question, picture, video, max_tokens, temperature, conversation]
        asked = gr.on(
            [question.submit, send.click], page.ask, inputs, [question, chat, costs, conversation],
            concurrency_limit=8, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        stop.click(
            page.stop, [question, conversation], [question, chat, conversation], cancels=[asked], api_visibility="private"
        )  # fmt: skip
        gr.on(
            [again.click, chat.clear], lambda: (None, None, [], panel.EMPTY, Conversation()), None,
            [picture, video, chat, costs, conversation], cancels=[asked], api_visibility="private",
        )  # fmt: skip
        theme.click(None, js=SWITCH_THEME, api_visibility="private")
        blocks.load(page.server, None, server, api_visibility="private")
    return blocks


def serve(blocks: gr.Blocks, host: str, port: int, ready: str, allowed_hosts: Sequence[str] = ()) -> None:
    """Serve until SIGTERM or KeyboardInterrupt; `ready` is printed with the address in it once the page can be opened.

    Args:
        allowed_hosts: names beside this machine's own that a browser may know it by.
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
        app_kwargs={"middleware": [Middleware(HostGuard, is_allowed=is_allowed, same_origin=True)]},
        css=CSS,
        theme=gr.themes.Base(primary_hue="teal", font=SANS, font_mono=MONO).set(
            body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400"
        ),
    )
    try:
        print(ready.format(url=url), flush=True)
        while True:
            time.sleep(0.2)  # a longer one would sleep on where the signal comes just before it
    finally:
        blocks.close(verbose=False)
