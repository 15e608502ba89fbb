"""One table of layouts through both exports and the gates; transformers' own processor, with torchvision, is the judge."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contract.errors import BundleError
from contract.language import read_language_card
from edge_runtime import Bundle
from edge_runtime.families import find
from edge_runtime.items.clip import Clip
from edge_runtime.items.preparation import picture_item
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.prompts.chat_template import render
from edge_runtime.prompts.prompt import prompt_ids
from export.gate.processor import drawn
from export.language import export_language
from export.progress import Progress
from export.source.checkpoint import Checkpoint
from export.vision import export_vision
from tests.export.layouts import READ, REFUSED, Change, build
from tests.processor import load_processor, pixel_values

CLIP_FPS = 10.0


@pytest.mark.usefixtures("few_packs")
@pytest.mark.parametrize("change", READ.values(), ids=READ)
def test_a_layout_means_what_it_means_to_transformers(tmp_path: Path, change: Change) -> None:
    from transformers.video_utils import VideoMetadata

    model = build(change, tmp_path / "model")
    result = export_vision(str(model), tmp_path / "edge")
    language = export_language(str(model), tmp_path / "language")
    assert result.fingerprint == language.fingerprint == read_language_card(tmp_path / "language").encoder_fingerprint
    bundle, processor = Bundle.load(tmp_path / "edge"), load_processor(model)
    manifest = bundle.manifest
    assert {row["gate"] for row in manifest.gates} == {"processor", "prompt"}

    picture = Image.fromarray(drawn(1, 200, 300))
    ours = picture_item(picture, manifest.image, manifest.card)
    theirs = processor.image_processor(images=[picture], return_tensors="np")
    assert ours.grid_thw == tuple(theirs["image_grid_thw"][0].tolist())
    np.testing.assert_allclose(
        pixel_values(ours, manifest.image), theirs["pixel_values"], atol=1e-4 * max(1, _span(manifest))
    )

    frames = np.stack([drawn(seed, 64, 96) for seed in range(30)])
    indices = VideoOptions().indices(len(frames), CLIP_FPS, manifest.video)
    chosen = (Image.fromarray(frames[index]) for index in indices)
    clip = find(manifest.card.family).clip(Clip(chosen, indices, CLIP_FPS), manifest.video, manifest.card)
    template = processor.chat_template or processor.tokenizer.chat_template
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Hm?"}, {"type": "video", "video": frames}]},
        {"role": "assistant", "content": "A star."},
        {"role": "user", "content": "And?"},
    ]  # fmt: skip
    text = processor.apply_chat_template(messages, chat_template=template, add_generation_prompt=True)
    expected = processor(
        text=[text], images=[picture], videos=[frames], return_tensors="np",
        video_metadata=[VideoMetadata(total_num_frames=len(frames), fps=CLIP_FPS)],
    )  # fmt: skip
    assert clip.grid_thw == tuple(expected["video_grid_thw"][0].tolist())
    difference = np.abs(pixel_values(clip, manifest.image) - expected["pixel_values_videos"])
    assert difference.max() <= 2.01 * _span(manifest) / 255  # Pillow and torchvision round a pixel in their own ways
    prompt = render(bundle.chat_template, messages, special_tokens=manifest.special_tokens)
    assert prompt_ids(prompt, [ours, clip], bundle).tolist() == expected["input_ids"][0].tolist()
    served = Bundle.load(tmp_path / "edge").tokenizer.get_vocab()
    assert (tmp_path / "language" / "tokenizer.json").read_bytes() == (
        tmp_path / "edge" / "tokenizer.json"
    ).read_bytes()
    assert served == processor.tokenizer.get_vocab()


def _span(manifest: Any) -> float:
    """The size of 255 grey levels after normalising."""
    return 1 / min(manifest.image.std)


@pytest.mark.parametrize(
    ("name", "grids"),
    [
        ("as it is", ((8, 12), (8, 10))),
        ("max_pixels beside size", ((6, 8), (6, 8))),
        ("both bounds beside size", ((6, 8), (6, 8))),
    ],
)
def test_grids_that_are_known(tmp_path: Path, name: str, grids: tuple[tuple[int, int], ...]) -> None:
    checkpoint = Checkpoint(build(READ[name], tmp_path / "model"))
    for (width, height), grid in zip(((300, 200), (640, 480)), grids, strict=True):
        item = picture_item(Image.new("RGB", (width, height)), checkpoint.image, checkpoint.card)
        assert item.grid_thw == (1, *grid)


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(tmp_path: Path, change: Change, message: str) -> None:
    model = build(change, tmp_path / "model")
    for export in (export_vision, export_language):
        with pytest.raises(BundleError, match=message):
            export(str(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_notices(tmp_path: Path) -> None:
    from io import StringIO

    from tests.export.layouts import adapter_beside, untied
    from tests.export.quantised import quantised

    for number, (change, said) in enumerate(
        (
            (adapter_beside, "adapter_model.safetensors, type LORA, rank 8, of Base/Model"),
            (
                quantised("fp8"),
                "quantised with fp8: the server needs the package accelerate",
            ),
            (untied, "it is an embedding model, which answers no text"),
        )
    ):
        screen = StringIO()
        model = build(change, tmp_path / f"model{number}")
        export_language(str(model), tmp_path / f"language{number}", Progress(screen))
        assert said in screen.getvalue()
