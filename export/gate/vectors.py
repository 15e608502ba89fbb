"""The gates of an embedding model: pixels, token ids and both towers' vectors against transformers' own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from contract.embedder import TEXT_GRAPH, EmbedderManifest
from contract.errors import ParityError
from contract.manifest import TOKENIZER
from edge_runtime.embedder import Embedder
from edge_runtime.items.patches import normalised
from edge_runtime.tower.session_options import session_options
from export import families
from export.families.tile_facts import TileFacts
from export.gate import parity
from export.gate.oracle import Outputs
from export.gate.processor import NOTHING, drawn
from export.gate.tiles import SIZES, compare_pixels
from export.graph.tower import Tower

TEXTS = (
    *("a", "a photo of a cat", "A photo of two DOGS, running!", "  leading and  double blanks ", "naïve café, 100 %"),
    *(
        "a red circle",
        "a green square on a blue table",
        "ein Bild von einem Haus",
        "写真",
        "x" * 40,
        "1 2 3 4 5 6 7 8 9",
    ),
    "one two three four five six seven eight nine ten eleven twelve",
)


def vector_gates(
    folder: Path, family: families.EmbedderFamily, draft: EmbedderManifest, work: Path, tokenizer: Any
) -> list[dict[str, Any]]:
    """Compare the device's pixels and token ids with transformers'; returns the manifest's gates.

    Raises:
        ParityError: a pixel or a token id differs; the message names the case.
    """
    embedder = _without_sessions(draft, work)
    rows = (
        ("processor", "pictures: every pixel", _pictures(folder, family, embedder)),
        ("prompt", "token ids of texts", _texts(tokenizer, embedder)),
    )
    return [{"gate": gate, "compared": name, "cases": sum(1 for _ in cases)} for gate, name, cases in rows]


def _without_sessions(draft: EmbedderManifest, work: Path) -> Embedder:
    """A device that only prepares inputs: it has no graphs."""
    none: Any = None
    return Embedder(draft, Tokenizer.from_file(str(work / TOKENIZER)), none, none)


def _pictures(folder: Path, family: families.EmbedderFamily, embedder: Embedder) -> Iterator[None]:
    from transformers import AutoImageProcessor

    tiles = embedder.manifest.tiles
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    for seed, (height, width) in enumerate(SIZES):
        picture = Image.fromarray(drawn(seed, height, width))
        values = family.pixels(processor(images=[picture], return_tensors="np"), tiles)
        name = f"a picture of {width} x {height}"
        compare_pixels(name, [embedder.item(picture)], values, processor, tiles)
        yield


def _texts(tokenizer: Any, embedder: Embedder) -> Iterator[None]:
    most, fills = embedder.manifest.max_text_tokens, embedder.manifest.pads_to_max
    for text in TEXTS:
        ours = embedder.token_ids([text])[0].tolist()
        padding = {"padding": "max_length", "max_length": most} if fills else {}
        original = tokenizer(text, **padding)["input_ids"]
        if ours != original:
            raise ParityError(
                f"token ids of {text!r} differ from transformers': {ours[:12]} here, {original[:12]} there. {NOTHING}"
            )
        yield


def picture_answer(
    family: families.EmbedderFamily,
    whole: Any,
    facts: TileFacts,
    tower: Tower,
    patches: NDArray[np.uint8],
    grid_thw: NDArray[np.int64],
) -> Outputs:
    """get_image_features of transformers' model, float32 (frames, width).

    Args:
        patches: uint8 (num_patches, patch_width).
        grid_thw: int64 (num_items, 3).
    """
    values = normalised(patches, facts.image.mean, facts.image.std)
    return {"image_embeds": family.features(whole, tower, facts.tiles, values, grid_thw)}


def text_rows(whole: Any, work: Path, draft: EmbedderManifest) -> list[parity.Row]:
    """Compare the text graph with get_text_features: each text alone, and all together."""
    import torch

    prepared, session = (
        _without_sessions(draft, work),
        onnxruntime.InferenceSession(str(work / TEXT_GRAPH), session_options(), providers=["CPUExecutionProvider"]),
    )
    rows = []
    for texts in (*([text] for text in TEXTS), list(TEXTS)):
        ids = prepared.token_ids(texts)
        with torch.inference_mode():
            expected = whole.get_text_features(input_ids=torch.from_numpy(ids)).pooler_output.numpy()
        got = session.run(["text_embeds"], {"input_ids": ids})[0]
        name = f"text {texts[0][:20]!r}" if len(texts) == 1 else f"{len(texts)} texts"
        rows.append(parity.compare(name, "text_embeds", expected, got))
    return rows
