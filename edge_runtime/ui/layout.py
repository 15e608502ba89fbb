"""How the page looks: media on the left, the chat in the middle, costs and cards on the right; one column on a phone.

Each function draws one part into the surrounding Gradio block and returns the parts that events need.
"""

from typing import NamedTuple

import gradio as gr

from contract.manifest import Manifest
from edge_runtime.ui import panel
from edge_runtime.ui.uploads import PictureInput, VideoInput

TITLE = "edge-vlm"
HINT = "Choose a picture or a video, then ask about it. It is encoded on this device."
EXAMPLES = ("Describe the image.", "What text is in the image?", "How many objects are there?")


class Media(NamedTuple):
    """What the visitor shows, and how large it may be."""

    picture: PictureInput
    video: VideoInput
    add: gr.Button
    kept: gr.Gallery
    clear: gr.Button
    max_pixels: gr.Slider
    size: gr.HTML


class Answering(NamedTuple):
    """How the server shall answer."""

    system: gr.Textbox
    max_tokens: gr.Slider
    temperature: gr.Slider


class Talk(NamedTuple):
    """The chat, the question and what one may do with them."""

    chat: gr.Chatbot
    question: gr.Textbox
    send: gr.Button
    stop: gr.Button
    again: gr.Button
    export: gr.Button
    saved: gr.Textbox


class Costs(NamedTuple):
    """What a turn costs, what the tower saw, and the server's card."""

    costs: gr.HTML
    seen: gr.HTML
    server: gr.HTML


def head() -> gr.Button:
    """The title; returns the button that changes between dark and light."""
    with gr.Row(elem_id="head"):
        gr.HTML(f"<h1>{TITLE}</h1><p>Pictures stay on this device; the server sees embeddings.</p>")
        return gr.Button("Dark / light", size="sm", elem_id="theme", scale=0)


def media(manifest: Manifest, max_pixels: int, size_note: str) -> Media:
    """Picture and video, the kept pictures, and the slider of sizes."""
    with gr.Tab("Picture"):
        picture = PictureInput(
            type="filepath", image_mode=None, sources=["upload", "webcam", "clipboard"],
            label="Picture", elem_id="picture", height=280,
        )  # fmt: skip
    with gr.Tab("Video"):
        video = VideoInput(sources=["upload", "webcam"], label="Video", elem_id="video", height=280)
    add = gr.Button("Keep it and add another picture", size="sm", elem_id="add")
    kept = gr.Gallery(
        label="Kept pictures", elem_id="beside", visible=False, columns=3, height=140, interactive=False, buttons=[]
    )
    clear = gr.Button("Take the kept pictures away", size="sm", elem_id="clear-beside")
    has_sizes = manifest.card.tiles is None  # a family of tiles cuts every picture to its own size
    slider = gr.Slider(
        manifest.image.min_pixels, max_pixels, max_pixels, step=1,
        label="Most pixels of a picture", elem_id="pixels", visible=has_sizes,
    )  # fmt: skip
    size = gr.HTML(size_note, elem_id="size", visible=has_sizes)
    return Media(picture, video, add, kept, clear, slider, size)


def answering() -> Answering:
    """The system prompt, the length and the temperature, folded away."""
    with gr.Accordion("Answer", open=False):
        return Answering(
            gr.Textbox(label="System prompt", lines=2, max_lines=6, elem_id="system"),
            gr.Slider(1, 2048, 256, step=1, label="Most tokens"),
            gr.Slider(0, 2, 0, step=0.1, label="Temperature (0: the likeliest)"),
        )


def talk() -> Talk:
    """The chat, the line for a question, and the buttons below."""
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
    return Talk(chat, question, send, stop, again, export, saved=gr.Textbox(visible=False))


def costs(manifest: Manifest, threads: int) -> Costs:
    """The table of the turn, the maps, and the cards of server and bundle."""
    gr.HTML("<h2>This turn</h2>")
    table = gr.HTML(panel.EMPTY, elem_id="costs")
    seen = gr.HTML("", elem_id="seen")
    with gr.Accordion("Server", open=True):
        server = gr.HTML(elem_id="server")
    with gr.Accordion("Bundle on this device", open=False):
        gr.HTML(panel.bundle_card(manifest, threads), elem_id="bundle")
    return Costs(table, seen, server)
