"""A pad token that somebody typed is text wherever it stands, and the pictures keep their places."""

from typing import Any

import numpy as np
import pytest

from edge_runtime import Bundle, Encoder, Pipeline
from edge_runtime.prompts.own_pads import MARK, guarded

TYPED = f"Is <|image_pad|> or <|video_pad|>{MARK} a picture?"
PICTURE = np.full((96, 96, 3), 90, np.uint8)


def conversation(place: str, text: str) -> tuple[list[dict[str, Any]], list[Any] | None]:
    asked = {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What?"}]}
    if place == "part":
        asked["content"][1] = {"type": "text", "text": text}  # type: ignore[index]
    later = {"role": "user", "content": text if place == "string" else "And?"}
    said = {"role": "assistant", "content": text if place == "answer" else "Yes."}
    tool = {"type": "function", "function": {"name": "f", "description": text, "parameters": {"type": "object"}}}
    return [asked, said, later], [tool] if place == "tool" else None


@pytest.mark.parametrize("place", ["part", "string", "answer", "tool"])
def test_it_is_text(bundle: Bundle, place: str) -> None:
    pipeline, card = Pipeline(Encoder.from_bundle(bundle.folder)), bundle.manifest.card
    ids, other = (pipeline.request(*conversation(place, text)).input_ids for text in (TYPED, "QZX"))
    assert (ids == card.video_token_id).sum() == 0
    assert (ids == card.image_token_id).sum() == (other == card.image_token_id).sum() > 0
    text, expected = (bundle.tokenizer.decode(one.tolist(), skip_special_tokens=False) for one in (ids, other))
    template_reads_it = place != "tool" or "QZX" in expected
    assert template_reads_it or text == expected
    assert text == expected.replace("QZX", TYPED)


def test_texts_without_one_are_left_as_they_are() -> None:
    value = [{"content": [{"text": "an <image> and a pad"}, {"image": PICTURE}], "n": 1}]
    assert guarded(value, ("<|image_pad|>",)) == (value, "")
    assert guarded(value, ("<|image_pad|>",))[0] is value


def test_a_mark_that_somebody_typed_is_no_mark() -> None:
    made, mark = guarded([f"{MARK}<|p|>{MARK * 2}", "<|p|>"], ("<|p|>",))
    assert mark == MARK * 3
    assert [text.replace(mark, "") for text in made] == [f"{MARK}<|p|>{MARK * 2}", "<|p|>"]
    assert not any("<|p|>" in text for text in made)
