"""The prompt gate: the device writes transformers' token ids for every conversation, or the export publishes nothing.

Both render the checkpoint's template, both expand the pads, and both tokenizers encode the text. Where one refuses a
conversation, the other must refuse it, too.
"""

from typing import Any

import numpy as np

from contract.errors import EdgeVlmError, ParityError
from edge_runtime.bundle import Bundle
from edge_runtime.families.pads import PADS
from edge_runtime.items.item import Item
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.preparation import frames_item, picture_item
from edge_runtime.media.picture import load_picture
from edge_runtime.prompts.chat_template import Message, render
from edge_runtime.prompts.content import MediaPart, media_parts, plain
from edge_runtime.prompts.prompt import prompt_ids
from export.gate.conversations import Options, cases
from export.gate.processor import NOTHING, Row
from export.gate.reference import token_ids

SHOWN = 40  # characters that a message shows on each side of a difference


def prompt_gate(reference: Any, bundle: Bundle) -> list[Row]:
    """Compare the prompts of many conversations with transformers'.

    Args:
        reference: transformers' processor (export.gate.reference).
        bundle: the bundle that the export is about to publish.

    Returns:
        a row for each kind of comparison.

    Raises:
        ParityError: the vocabulary or a prompt differs; the message names the conversation and shows the place. Or the
            template refuses every conversation.
    """
    prompts = Prompts(reference, bundle)
    ours, original = bundle.tokenizer.get_vocab(with_added_tokens=True), reference.tokenizer.get_vocab()
    if differing := {token for token in ours.keys() | original.keys() if ours.get(token) != original.get(token)}:
        token = min(differing)
        raise ParityError(
            f"tokenizer.json has {token!r} as {ours.get(token)}, transformers' tokenizer as {original.get(token)} "
            f"({len(differing)} tokens differ): save the tokenizer again, AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    counts = {"prompts": 0, "refusals": 0}
    for name, messages, options in cases():
        kind, difference = prompts.compare(messages, options)
        if difference:
            raise ParityError(
                f"the prompt of {name!r} ({_named(options)}) differs from transformers': {difference}. {NOTHING}"
            )
        counts[kind] += 1
    if not counts["prompts"]:
        raise ParityError(
            "the chat template refuses every conversation: put the template of this model into the checkpoint"
        )
    return [
        {"gate": "prompt", "compared": "tokens of the vocabulary", "cases": len(ours)},
        {"gate": "prompt", "compared": "token ids of conversations", "cases": counts["prompts"]},
        {"gate": "prompt", "compared": "conversations that both refuse", "cases": counts["refusals"]},
    ]


class Prompts:
    """Compares one conversation after another; the device prepares each picture and video once.

    Attributes:
        template: the template that transformers renders; the device renders the bundle's.
    """

    def __init__(self, reference: Any, bundle: Bundle) -> None:
        self._reference, self._bundle = reference, bundle
        own = reference.chat_template
        self.template = own if own is not None else reference.tokenizer.chat_template
        if isinstance(self.template, dict):
            self.template = self.template.get("default")
        self._items: dict[
            int, tuple[Any, Item]
        ] = {}  # by the source's id, which stays its own as long as the source is here
        self._ids: dict[tuple[Any, ...], list[int]] = {}

    def compare(self, messages: list[Message], options: Options) -> tuple[str, str]:
        """What a conversation counts as, `prompts` or `refusals`, and how the sides differ: an empty text where they
        agree.

        Args:
            options: add_generation_prompt, continue_final_message, tools, documents, variables.
        """
        for attempt in range(2):  # a template may write the time, so a difference counts only the second time
            ours, original = self._ours(messages, options), self._original(messages, options)
            kind, difference = _verdict(ours, original)
            if not difference or attempt:
                break
        return kind, difference

    def _ours(self, messages: list[Message], options: Options) -> tuple[str, list[int] | EdgeVlmError]:
        """The device's text and ids; where it refuses, its text so far and the error."""
        manifest, text = self._bundle.manifest, ""
        try:
            items = [self._item(part) for part in media_parts(messages)]
            named = {name: value for name, value in options.items() if name != "tools"}
            text = render(
                self._bundle.chat_template,
                plain(messages),
                options.get("tools"),
                special_tokens=manifest.special_tokens,
                **named,
            )
            return text, prompt_ids(text, items, self._bundle).tolist()
        except EdgeVlmError as error:
            return text, error

    def _item(self, part: MediaPart) -> Item:
        manifest, name = self._bundle.manifest, id(part.source)
        if name not in self._items:
            if isinstance(part.options, PictureOptions):
                item = picture_item(part.source, manifest.image, manifest.card)
            else:
                item = frames_item(part.source, manifest.video, manifest.card, part.options)
            self._items[name] = part.source, item
        return self._items[name][1]

    def _original(self, messages: list[Message], options: Options) -> tuple[str, list[int] | str]:
        text, variables = "", options.get("variables", {})
        named = {name: value for name, value in options.items() if name != "variables"}
        try:
            text = self._reference.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, **named, **variables
            )
            parts = [
                part for message in messages if isinstance(message.get("content"), list) for part in message["content"]
            ]
            pictures = [_picture(part) for part in parts if part.get("type") in ("image", "image_url")]
            clips = [part for part in parts if "video" in part]
            return text, self._their_ids(text, pictures, clips)
        except Exception as error:  # whatever a template or a processor raises, it refuses
            return text, f"{type(error).__name__}: {error}"

    def _their_ids(self, text: str, pictures: list[Any], clips: list[Message]) -> list[int]:
        """The ids of a text and its media; many options of a conversation make the same text."""
        frames = [frame for clip in clips for frame in clip["video"]]
        rates = [(clip["sample_fps"], len(clip["video"])) for clip in clips]
        key = (text, len(pictures), *rates, *((image.size, image.tobytes()) for image in [*pictures, *frames]))
        if key not in self._ids:
            given: dict[str, Any] = {"images": pictures} if pictures else {}
            if clips:
                given["videos"] = [np.stack([np.asarray(frame) for frame in clip["video"]]) for clip in clips]
                given["video_metadata"] = [_metadata(clip) for clip in clips]
                given["do_sample_frames"] = False
            self._ids[key] = token_ids(self._reference, text, **given)
        return self._ids[key]


def _picture(part: Message) -> Any:
    return part["image"] if "image" in part else load_picture(part["image_url"]["url"])


def _metadata(clip: Message) -> dict[str, Any]:
    count = len(clip["video"])
    return {"fps": clip["sample_fps"], "total_num_frames": count, "frames_indices": list(range(count))}


def _verdict(device: tuple[str, list[int] | EdgeVlmError], reference: tuple[str, list[int] | str]) -> tuple[str, str]:
    (our_text, our_ids), (their_text, their_ids) = device, reference
    if isinstance(our_ids, EdgeVlmError) and isinstance(their_ids, str):
        return "refusals", ""
    if our_text != their_text:
        place = next((i for i, (a, b) in enumerate(zip(our_text, their_text, strict=False)) if a != b), None)
        at = min(len(our_text), len(their_text)) if place is None else place
        shown = [text[max(at - SHOWN, 0) : at + SHOWN] for text in (our_text, their_text)]
        why = next((f" ({ids})" for ids in (our_ids, their_ids) if not isinstance(ids, list)), "")
        return "prompts", f"at character {at} the device writes {shown[0]!r}, transformers {shown[1]!r}{why}"
    if isinstance(our_ids, EdgeVlmError):
        # transformers forgets media that its template does not show; the device does not
        return "refusals", "" if our_ids.check == PADS else f"the device refuses it: {our_ids}"
    if isinstance(their_ids, str):
        return "prompts", f"transformers refuses it: {their_ids}"
    if our_ids != their_ids:
        apart = (i for i, (a, b) in enumerate(zip(our_ids, their_ids, strict=False)) if a != b)
        at = next(apart, min(len(our_ids), len(their_ids)))
        return (
            "prompts",
            f"token {at} is {our_ids[at : at + 5]} here and {their_ids[at : at + 5]} there, of the same text",
        )
    return "prompts", ""


def _named(options: Options) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items() if value) or "nothing else"
