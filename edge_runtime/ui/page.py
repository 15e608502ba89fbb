"""What the page does: which event asks, stops and forgets. edge_runtime.ui.layout says how it looks.

Everything it shows comes from this device: no font, script or count goes to anybody else.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from contract.errors import EdgeVlmError, InvalidInput
from contract.sampling import Sampling
from edge_runtime.items.jpeg import pixels
from edge_runtime.pipeline import Pipeline
from edge_runtime.ui import layout, panel
from edge_runtime.ui.conversation import Conversation, Media, Turn
from edge_runtime.ui.look import look
from edge_runtime.ui.malformed import GuardedBlocks, reading
from edge_runtime.ui.uploads import Uploads

if TYPE_CHECKING:
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

SAVE = """(text) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
    link.download = 'conversation.json';
    link.click();
}"""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # no event is an API for others
MAX_CHARACTERS = 1 << 18  # of a question and a system prompt; a tokenizer takes 1 s a million
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
    ) -> Iterator[tuple[Any, Any, Any, Any, Any]]:
        """Yield text box, chat, costs, look and Stop button as the answer grows.

        A stopped turn ends here too: Gradio's own `cancels` can let the piece under way overtake what Stop draws.
        """
        if not question.strip():
            yield gr.skip(), history(conversation), gr.skip(), gr.skip(), gr.skip()
            return
        conversation.settle()
        conversation.system = system or ""
        conversation.max_pixels = int(max_pixels) if max_pixels < self._pipeline.max_pixels else None
        shown = [Media("image", path) for path in conversation.beside]
        shown += [Media("image", Path(picture))] if picture else []
        shown += [Media("video", Path(video))] if video else []
        new = conversation.new(shown)
        begun = [*history(conversation), *_asked(question, new)]
        waiting = {"role": "assistant", "content": "Encoding on this device …" if new else "…"}
        drawn = None
        try:
            if (size := len(question) + len(conversation.system)) > MAX_CHARACTERS:
                raise InvalidInput(
                    f"the question has {size} characters, up to {MAX_CHARACTERS} are read: send less text"
                )
            sampling = Sampling(max_tokens=int(max_tokens), temperature=temperature)
            turns = conversation.ask(self._pipeline, self._client, question, shown, sampling)
            yield "", [*begun, waiting], panel.EMPTY, "", gr.update(visible=True)
            for turn in turns:
                answer = {"role": "assistant", "content": turn.text or "…"}
                if drawn is None:
                    drawn = self._look(turn, shown)
                costs = panel.costs(turn, self._url) + panel.against_jpeg(turn)
                yield gr.skip(), [*begun, answer], costs, drawn, gr.skip()
        except EdgeVlmError as error:
            answer = {"role": "assistant", "content": panel.failure(error)}
            yield question, [*begun, answer], panel.EMPTY, "", gr.update(visible=False)
            return
        if conversation.pending is None:  # else a newer turn draws the page
            yield gr.skip(), history(conversation), gr.skip(), gr.skip(), gr.update(visible=False)

    def _look(self, turn: Turn, shown: Sequence[Media]) -> str:
        """The maps of the last picture that the page shows."""
        if turn.num_encoded and turn.num_visual_tokens:
            self._ms_per_token = turn.encode_ms / turn.num_visual_tokens
        pictures = [one.path for one in shown if one.kind == "image"]
        items = [item for item in turn.items if not item.is_video]
        if not pictures or not items:
            return ""
        return look(
            items[-1], partial(self._decoded, pictures[-1]), self._pipeline.encoder.bundle.manifest.card.merge_size
        )

    def _decoded(self, path: Path) -> Image.Image:
        """A picture as the tower sees it, from the pipeline's decoders: this process opens no visitor's file.

        Raises:
            MediaError, Unavailable: as Pipeline.items.
        """
        content = [{"type": "image", "image": str(path)}]
        (item,) = self._pipeline.items([{"role": "user", "content": content}])
        return Image.fromarray(pixels(item, self._pipeline.encoder.bundle.manifest.card)[0])

    def size(self, max_pixels: float) -> str:
        """What a picture of the slider's size takes: tokens, bytes and time, as HTML."""
        return panel.size_note(max_pixels, self._pipeline.encoder.bundle.manifest, self._ms_per_token)

    def stop(self, question: str, conversation: Conversation) -> tuple[str, History, Any]:
        """Keep the answer so far; a question without an answer comes back into its box."""
        unanswered = conversation.settle()
        return question or unanswered, history(conversation), gr.update(visible=False)

    def retry(self, conversation: Conversation, event: gr.EventData) -> str:
        """Take back the turn whose answer the visitor wants anew; the page then asks its question again."""
        taken = conversation.take_back(_turn_at(conversation, event))
        return taken.question if taken else ""

    def edit(self, conversation: Conversation, event: gr.EventData) -> str:
        """Take back the edited turn and all turns behind it; the page then asks what the visitor wrote instead."""
        turn = _turn_at(conversation, event)
        with reading("edit"):
            said = str(event._data["value"])
        conversation.take_back(turn)
        return said

    def add(self, picture: str | None, conversation: Conversation) -> tuple[None, Any]:
        """Keep the picture beside the chat, and make room for another."""
        if picture:
            conversation.beside.append(Path(picture))
        return None, _beside(conversation)

    def clear_beside(self, conversation: Conversation) -> Any:
        """Take the kept pictures away: later prompts do not have them."""
        conversation.beside.clear()
        return _beside(conversation)


def _beside(conversation: Conversation) -> Any:
    return gr.update(value=[str(path) for path in conversation.beside], visible=bool(conversation.beside))


def _turn_at(conversation: Conversation, event: gr.EventData) -> int:
    """The turn that the message of an event belongs to, a message of `history`."""
    with reading("of a turn"):
        index = event._data["index"]
        place = int(index[0] if isinstance(index, list | tuple) else index)
    for turn, said in enumerate(conversation.said):
        place -= len(said.media) + 2
        if place < 0:
            return turn
    return len(conversation.said)


def _example(event: gr.EventData) -> str:
    with reading("of an example"):
        return str(event._data["value"]["text"])


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
    blocks = GuardedBlocks(title=layout.TITLE, analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600))
    with blocks:
        conversation = gr.State(lambda: Conversation())  # each visitor gets a new one
        theme = layout.head()
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=3, min_width=280):
                media = layout.media(manifest, pipeline.max_pixels, page.size(pipeline.max_pixels))
                how = layout.answering()
            with gr.Column(scale=5, min_width=300, elem_id="talk"):
                talk = layout.talk()
            with gr.Column(scale=3, min_width=280):
                costs = layout.costs(manifest, threads)
        media.picture.uploads = media.video.uploads = uploads
        _listen_for_questions(page, conversation, media, how, talk, costs)
        _listen_for_media(page, conversation, media)
        talk.export.click(lambda held: held.as_json(), conversation, talk.saved, **PRIVATE).then(
            None, talk.saved, None, js=SAVE, **PRIVATE
        )
        theme.click(None, js=SWITCH_THEME, **PRIVATE)
        blocks.load(page.server, None, costs.server, **PRIVATE)
    return blocks


def _listen_for_questions(
    page: Page,
    conversation: gr.State,
    media: layout.Media,
    how: layout.Answering,
    talk: layout.Talk,
    costs: layout.Costs,
) -> None:
    """What asks a question, asks it anew, and ends an answer."""
    picture, video, chat, question, stop = media.picture, media.video, talk.chat, talk.question, talk.stop
    inputs = [question, picture, video, how.max_tokens, how.temperature, how.system, media.max_pixels, conversation]
    outputs = [question, chat, costs.costs, costs.seen, stop]
    hidden: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
    slow = {"concurrency_limit": 8, "trigger_mode": "multiple", **hidden}  # a stopped turn may end behind a new one
    gr.on([question.submit, talk.send.click], page.ask, inputs, outputs, **slow)
    for listen, change in ((chat.retry, page.retry), (chat.edit, page.edit)):
        listen(change, conversation, question, **PRIVATE).then(page.ask, inputs, outputs, **slow)
    chat.example_select(_example, None, question, **PRIVATE)
    stop.click(page.stop, [question, conversation], [question, chat, stop], **hidden)
    emptied = [picture, video, chat, costs.costs, costs.seen, stop, media.kept]
    gr.on([talk.again.click, chat.clear], _empty, conversation, emptied, **PRIVATE)


def _listen_for_media(page: Page, conversation: gr.State, media: layout.Media) -> None:
    """What keeps pictures, takes them away, and bounds their size."""
    media.add.click(page.add, [media.picture, conversation], [media.picture, media.kept], **PRIVATE)
    media.clear.click(page.clear_beside, conversation, media.kept, **PRIVATE)
    media.max_pixels.change(page.size, media.max_pixels, media.size, show_progress="hidden", **PRIVATE)


def _empty(conversation: Conversation) -> tuple[Any, ...]:
    """A page without pictures, chat and costs; the conversation begins anew."""
    conversation.forget()
    hidden, nothing_kept = gr.update(visible=False), gr.update(value=None, visible=False)
    return None, None, [], panel.EMPTY, "", hidden, nothing_kept
