"""The gates of tile families: pixels of tiles and prompts with pictures, compared with transformers' own processor."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from contract.errors import BundleError, ParityError
from contract.manifest import CHAT_TEMPLATE, TOKENIZER, Manifest
from edge_runtime.bundle import Bundle
from edge_runtime.families.tiles import tiles_of
from edge_runtime.items.patches import to_patches
from edge_runtime.items.preparation import picture_item
from edge_runtime.prompts.chat_template import Message, render
from edge_runtime.prompts.content import plain
from edge_runtime.prompts.prompt import prompt_ids
from export.gate.processor import NOTHING, drawn
from export.gate.reference import SHOWN, quiet, token_ids

SIZES = ((336, 336), (100, 700), (700, 100), (437, 300), (480, 641), (37, 53), (333, 1000), (672, 672), (1001, 999))


def tile_gates(checkpoint: Path, work: Path, manifest: Manifest) -> Manifest:
    """The manifest with the tokenizer's special tokens and what was compared; see export.gate.inputs.input_gates."""
    with quiet():
        reference = load_reference(checkpoint, manifest.card.family)
        manifest = replace(manifest, special_tokens=dict(reference.tokenizer.special_tokens_map))
        template = (work / CHAT_TEMPLATE).read_text(encoding="utf-8")
        bundle = Bundle(work, manifest, Tokenizer.from_file(str(work / TOKENIZER)), template)
        rows = (
            ("processor", "pictures: every pixel of every tile", _pictures(reference, bundle)),
            ("prompt", "token ids of conversations with pictures", _prompts(reference, bundle)),
        )
        gates = [{"gate": gate, "compared": name, "cases": sum(1 for _ in cases)} for gate, name, cases in rows]
        return replace(manifest, gates=gates)


def load_reference(folder: Path, family: str) -> Any:
    """transformers' processor of a checkpoint without its video processor, which needs torchvision.

    Raises:
        BundleError: transformers cannot load it.
    """
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name = PROCESSOR_MAPPING_NAMES[family]
    processor = getattr(import_module(f"transformers.models.{family}.processing_{family}"), name)

    class Pictures(processor):  # type: ignore[valid-type, misc]
        """The processor without the check of its parts' classes, one of which is missing."""

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
            return type(argument)

    try:
        parts = (
            AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
        )
        values, _ = processor.get_processor_dict(folder, local_files_only=True)
        kept = {key: value for key, value in values.items() if not isinstance(value, dict)}
        return Pictures.from_args_and_dict(list(parts), kept)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{folder}: transformers cannot load its processor: {str(error)[:SHOWN]}") from error


def _pictures(reference: Any, bundle: Bundle) -> Iterator[None]:
    manifest, processor = bundle.manifest, reference.image_processor
    tiles = tiles_of(manifest.card)
    defaults = dict(getattr(reference, "images_kwargs", {}))  # InternVL's tiles are asked for here
    mean, std = np.array(processor.image_mean), np.array(processor.image_std)
    for seed, (height, width) in enumerate(SIZES):
        picture = Image.fromarray(drawn(seed, height, width))
        ours = picture_item(picture, manifest.image, manifest.card)
        values = np.asarray(processor(images=[picture], return_tensors="np", **defaults)["pixel_values"])
        levels = np.rint((values.reshape(-1, *values.shape[-3:]).transpose(0, 2, 3, 1) * std + mean) * 255)
        seen = np.ascontiguousarray(levels.astype(np.uint8)[:, : tiles.seen, : tiles.seen])
        theirs, _ = to_patches(seen, tiles.patch, tiles.merge, 1)
        if not np.array_equal(ours.patches, theirs):
            shapes = (
                f"{ours.tower_thw[0]} tiles here, {len(levels)} there" if len(theirs) != len(ours.patches) else "pixels"
            )
            raise ParityError(
                f"the device prepares a picture of {width} x {height} otherwise than transformers: {shapes}. {NOTHING}"
            )
        yield


def conversations() -> Iterator[tuple[str, list[Message]]]:
    """Conversations without a picture, with one, with several, over several turns."""

    def part(seed: int, height: int, width: int) -> Message:
        return {"type": "image", "image": Image.fromarray(drawn(seed, height, width))}

    def say(role: str, *content: Message | str) -> Message:
        return {"role": role, "content": [c if isinstance(c, dict) else {"type": "text", "text": c} for c in content]}

    yield "text", [say("user", " Hello,  world ")]
    yield "one picture", [say("user", part(1, 60, 60), "What is it?")]
    yield "a wide picture behind the text", [say("user", "Look: ", part(2, 100, 700))]
    yield "two pictures", [say("user", part(3, 60, 200), " and ", part(4, 333, 100), "Which?")]
    yield "two turns", [say("user", part(5, 437, 300), "What?"), say("assistant", "A star."), say("user", "Sure?")]
    yield "a picture a turn", [say("user", part(6, 90, 90), "A?"), say("assistant", "1"), say("user", part(7, 50, 160))]


def _prompts(reference: Any, bundle: Bundle) -> Iterator[None]:
    manifest = bundle.manifest
    for name, messages in conversations():
        parts = [part for message in messages for part in message["content"] if part["type"] == "image"]
        items = [picture_item(part["image"], manifest.image, manifest.card) for part in parts]
        text = render(bundle.chat_template, plain(messages), None, special_tokens=manifest.special_tokens)
        ours = prompt_ids(text, items, bundle).tolist()
        pictures = {"images": [[part["image"] for part in parts]]} if parts else {}
        theirs = token_ids(reference, text, **pictures)
        if ours != theirs:
            raise ParityError(
                f"the prompt of {name!r} differs from transformers': {len(ours)} tokens {ours[:12]} here, {len(theirs)} "
                f"tokens {theirs[:12]} there. {NOTHING}"
            )
        yield
