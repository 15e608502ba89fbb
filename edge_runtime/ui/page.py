"""The page: media on the left, the chat in the middle, costs and cards on the right; one column on a phone.

Everything it shows comes from this device: no font, script or count goes to anybody else.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.middleware import Middleware

from contract.errors import EdgeVlmError
from contract.sampling import Sampling
from edge_runtime.gateway.hosts import LOOPBACK_NAMES, HostGuard, is_loopback, is_own_name
from edge_runtime.pipeline import Pipeline
from edge_runtime.ui import panel
from edge_runtime.ui.conversation import Conversation, Media, Turn
from edge_runtime.ui.look import look
from edge_runtime.ui.uploads import PictureInput, Uploads, VideoInput

if TYPE_CHECKING:
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

TITLE = "edge-vlm"
TIDY_SECONDS = 5.0
SANS, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # local fonts: the page fetches none
CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
HINT = "Choose a picture or a video, then ask about it. It is encoded on this device."
EXAMPLES = ("Describe the image.", "What text is in the image?", "How many objects are there?")
SAVE = """(text) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
    link.download = 'conversation.json';
    link.click();
}"""
SWITCH_THEME = "() => document.body.classList.toggle('dark')"
History = list[dict[str, Any]]


class Page:
    """What the page does at each event. Visitors share one object; what belongs to one visitor is in a Conversation."""

    def __init__(self, pipeline: Pipeline, client: "GrpcClient | HttpClient", url: str) -> None:
        self._pipeline, self._client, self._url = pipeline, client, url
        self._ms_per_token: float | None = None  # the tower's time for the last picture

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
        system: str | None,
        max_pixels: float,
        conversation: Conversation,
    ) -> Iterator[tuple[str, History, str, str, Any, Conversation]]:
        """Yield text box, chat, costs, look, Stop button and conversation as the answer grows."""
        if not question.strip():
            yield question, history(conversation), gr.skip(), gr.skip(), gr.skip(), conversation
            return
        conversation.system = system or ""
        conversation.max_pixels = int(max_pixels) if max_pixels < self._pipeline.max_pixels else None
        shown = [Media("image", path) for path in conversation.beside]
        shown += [Media("image", Path(picture))] if picture else []
        shown += [Media("video", Path(video))] if video else []
        new = conversation.new(shown)
        begun = [*history(conversation), *_asked(question, new)]
        waiting = "Encoding on this device …" if new else "…"
        yield (
            "",
            [*begun, {"role": "assistant", "content": waiting}],
            panel.EMPTY,
            "",
            gr.update(visible=True),
            conversation,
        )
        drawn = None
        try:
            sampling = Sampling(max_tokens=int(max_tokens), temperature=temperature)
            for turn in conversation.ask(self._pipeline, self._client, question, shown, sampling):
                answer = {"role": "assistant", "content": turn.text or "…"}
                if drawn is None:
                    drawn = self._look(turn, shown)
                yield (
                    "",
                    [*begun, answer],
                    panel.costs(turn, self._url) + panel.against_jpeg(turn),
                    drawn,
                    gr.skip(),
                    conversation,
                )
        except EdgeVlmError as error:
            answer = {"role": "assistant", "content": panel.failure(error)}
            yield question, [*begun, answer], panel.EMPTY, "", gr.update(visible=False), conversation
            return
        yield "", history(conversation), gr.skip(), gr.skip(), gr.update(visible=False), conversation

    def _look(self, turn: Turn, shown: Sequence[Media]) -> str:
        """The maps of the last picture that the page shows."""
        if turn.num_encoded and turn.num_visual_tokens:
            self._ms_per_token = turn.encode_ms / turn.num_visual_tokens
        pictures = [one.path for one in shown if one.kind == "image"]
        items = [item for item in turn.items if not item.is_video]
        if not pictures or not items:
            return ""
        return look(items[-1], pictures[-1], self._pipeline.encoder.bundle.manifest.card.merge_size)

    def size(self, max_pixels: float) -> str:
        """What a picture of the slider's size takes: tokens, bytes and time, as HTML."""
        return panel.size_note(max_pixels, self._pipeline.encoder.bundle.manifest, self._ms_per_token)

    def stop(self, question: str, conversation: Conversation) -> tuple[str, History, Any, Conversation]:
        """Keep the answer so far; a question without an answer comes back into its box."""
        unanswered = conversation.settle()
        return question or unanswered, history(conversation), gr.update(visible=False), conversation

    def retry(self, conversation: Conversation, event: gr.RetryData) -> tuple[str, Conversation]:
        """Take back the turn whose answer the visitor wants anew; the page then asks its question again."""
        taken = conversation.take_back(_turn_at(conversation, event.index))
        return taken.question if taken else "", conversation

    def edit(self, conversation: Conversation, event: gr.EditData) -> tuple[str, Conversation]:
        """Take back the edited turn and all turns behind it; the page then asks what the visitor wrote instead."""
        conversation.take_back(_turn_at(conversation, event.index))
        return str(event.value), conversation

    def add(self, picture: str | None, conversation: Conversation) -> tuple[None, Any, Conversation]:
        """Keep the picture beside the chat, and make room for another."""
        if picture:
            conversation.beside.append(Path(picture))
        return None, _beside(conversation), conversation

    def clear_beside(self, conversation: Conversation) -> tuple[Any, Conversation]:
        """Take the kept pictures away: later prompts do not have them."""
        conversation.beside.clear()
        return _beside(conversation), conversation


def _beside(conversation: Conversation) -> Any:
    return gr.update(value=[str(path) for path in conversation.beside], visible=bool(conversation.beside))


def _turn_at(conversation: Conversation, index: Any) -> int:
    """The turn that a message of `history` belongs to."""
    place = int(index[0] if isinstance(index, list | tuple) else index)
    for turn, said in enumerate(conversation.said):
        place -= len(said.media) + 2
        if place < 0:
            return turn
    return len(conversation.said)


def _example(event: gr.SelectData) -> str:
    return str(event.value["text"])


def history(conversation: Conversation) -> History:
    """The chat as Gradio draws it, out of the page's own conversation and never out of what a browser sends back."""
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
    page, manifest = Page(pipeline, client, url), pipeline.encoder.bundle.manifest
    blocks = gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600))
    with blocks:
        conversation = gr.State(lambda: Conversation())  # each visitor gets a new one
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
                add = gr.Button("Keep it and add another picture", size="sm", elem_id="add")
                gallery = gr.Gallery(
                    label="Kept pictures", elem_id="beside", visible=False, columns=3, height=140, interactive=False,
                    buttons=[],
                )  # fmt: skip
                clear = gr.Button("Take the kept pictures away", size="sm", elem_id="clear-beside")
                least, most = manifest.image.min_pixels, pipeline.max_pixels
                has_sizes = manifest.card.tiles is None  # a family of tiles cuts every picture to its own size
                max_pixels = gr.Slider(
                    least, most, most, step=1, label="Most pixels of a picture", elem_id="pixels", visible=has_sizes
                )
                size = gr.HTML(page.size(most), elem_id="size", visible=has_sizes)
                with gr.Accordion("Answer", open=False):
                    system = gr.Textbox(label="System prompt", lines=2, max_lines=6, elem_id="system")
                    max_tokens = gr.Slider(1, 2048, 256, step=1, label="Most tokens")
                    temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature (0: the likeliest)")
            with gr.Column(scale=5, min_width=300, elem_id="talk"):
                chat = gr.Chatbot(
                    elem_id="chat", height=440, show_label=False, buttons=["copy"], feedback_options=None,
                    editable="user", placeholder=HINT, examples=[{"text": text} for text in EXAMPLES],
                )  # fmt: skip
                with gr.Row():
                    question = gr.Textbox(
                        placeholder="Ask about the picture", show_label=False, elem_id="question", scale=6, max_lines=4
                    )
                    send = gr.Button("Ask", variant="primary", elem_id="send", scale=1, min_width=70)
                    stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=70, visible=False)
                with gr.Row():
                    again = gr.Button("New conversation", size="sm", elem_id="again")
                    export = gr.Button("Save as JSON", size="sm", elem_id="export")
                saved = gr.Textbox(visible=False)
            with gr.Column(scale=3, min_width=280):
                gr.HTML("<h2>This turn</h2>")
                costs = gr.HTML(panel.EMPTY, elem_id="costs")
                seen = gr.HTML("", elem_id="seen")
                with gr.Accordion("Server", open=True):
                    server = gr.HTML(elem_id="server")
                with gr.Accordion("Bundle on this device", open=False):
                    gr.HTML(panel.bundle_card(manifest, threads), elem_id="bundle")
        picture.uploads = video.uploads = uploads
        inputs = [question, picture, video, max_tokens, temperature, system, max_pixels, conversation]
        outputs = [question, chat, costs, seen, stop, conversation]
        answering: dict[str, Any] = {"concurrency_limit": 8, "show_progress": "hidden", "api_visibility": "private"}
        asked = [gr.on([question.submit, send.click], page.ask, inputs, outputs, **answering)]
        for listen, change in ((chat.retry, page.retry), (chat.edit, page.edit)):
            changed = listen(change, conversation, [question, conversation], api_visibility="private")
            asked.append(changed.then(page.ask, inputs, outputs, **answering))
        chat.example_select(_example, None, question, api_visibility="private")
        stop.click(
            page.stop, [question, conversation], [question, chat, stop, conversation], cancels=asked,
            api_visibility="private",
        )  # fmt: skip
        gr.on(
            [again.click, chat.clear],
            lambda: (None, None, [], panel.EMPTY, "", gr.update(visible=False), gr.update(value=None, visible=False), Conversation()),
            None, [picture, video, chat, costs, seen, stop, gallery, conversation], cancels=asked, api_visibility="private",
        )  # fmt: skip
        add.click(page.add, [picture, conversation], [picture, gallery, conversation], api_visibility="private")
        clear.click(page.clear_beside, conversation, [gallery, conversation], api_visibility="private")
        max_pixels.change(page.size, max_pixels, size, show_progress="hidden", api_visibility="private")
        export.click(lambda held: held.as_json(), conversation, saved, api_visibility="private").then(
            None, saved, None, js=SAVE, api_visibility="private"
        )
        theme.click(None, js=SWITCH_THEME, api_visibility="private")
        blocks.load(page.server, None, server, api_visibility="private")
    return blocks


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
        app_kwargs={"middleware": [Middleware(HostGuard, is_allowed=is_allowed, same_origin=True)]},
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
