"""Any conversation: token ids of the device and of transformers' processor, for both prompt variants."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import Bundle, Pipeline
from edge_runtime.prompts.chat_template import render
from edge_runtime.prompts.content import plain
from edge_runtime.prompts.prompt import prompt_ids
from tests.conftest import CHECKPOINT
from tests.edge.video_files import picture
from tests.processor import load_processor

# The tool block of Qwen3's template, in short: the bundled model's own template knows no tools.
TOOL_TEMPLATE = """
{%- if tools %}<|im_start|>system
{%- if messages[0].role == 'system' %}
{{ messages[0].content }}
{%- endif %}
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools><|im_end|>
{%- endif %}
{%- for message in messages %}{% if not (tools and loop.first and message.role == 'system') %}
<|im_start|>{{ message.role }}
{%- if message.content is string %}
{{ message.content }}
{%- else %}
{%- for part in message.content %}
{%- if part.type == 'image' or 'image' in part %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'text' in part %}{{ part.text }}{% endif %}
{%- endfor %}
{%- endif %}
{%- for call in message.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor %}<|im_end|>{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""

TEXTS = st.text(max_size=30).filter(lambda text: "<|" not in text)
SIZES = st.sampled_from([(96, 96), (160, 128), (64, 200), (300, 220)])
PICTURES = SIZES.map(lambda size: {"type": "image", "image": picture(1, *size)})
VIDEOS = st.builds(
    lambda size, count, fps: {"type": "video", "video": [picture(i, *size) for i in range(count)], "sample_fps": fps},
    SIZES, st.integers(2, 5), st.sampled_from([0.5, 2.0, 3.0]),
)  # fmt: skip
CONTENT = st.lists(st.one_of(TEXTS.map(lambda text: {"type": "text", "text": text}), PICTURES, VIDEOS), max_size=4)
USERS = st.one_of(TEXTS, CONTENT).map(lambda content: {"role": "user", "content": content})
CALLS = st.builds(
    lambda name, city: [{"type": "function", "function": {"name": name, "arguments": {"city": city}}}], TEXTS, TEXTS
)
ANSWERS = st.one_of(
    TEXTS.map(lambda text: {"role": "assistant", "content": text}),
    st.builds(lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls}, TEXTS, CALLS),
)
TOOLS = st.lists(
    st.builds(
        lambda name, about: {
            "type": "function",
            "function": {"name": name, "description": about, "parameters": {"type": "object", "properties": {}}},
        },
        TEXTS,
        TEXTS,
    ),
    min_size=1,
    max_size=2,
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": draw(TEXTS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        messages += [draw(USERS), draw(ANSWERS)]
    return [*messages, draw(USERS)]


@pytest.fixture(scope="module")
def processor() -> Any:
    return load_processor(CHECKPOINT)


def reference(processor: Any, messages: list[dict[str, Any]], **template: Any) -> tuple[str, list[int]]:
    """Prompt text and ids of transformers."""
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **template)
    parts = [part for m in messages if isinstance(m["content"], list) for part in m["content"]]
    images = [part["image"] for part in parts if "image" in part]
    clips = [part for part in parts if "video" in part]
    videos: dict[str, Any] = {}
    if clips:
        videos["videos"] = [np.stack([np.asarray(frame) for frame in part["video"]]) for part in clips]
        videos["do_sample_frames"] = False
        videos["video_metadata"] = [
            {
                "fps": p["sample_fps"],
                "total_num_frames": len(p["video"]),
                "frames_indices": list(range(len(p["video"]))),
            }
            for p in clips
        ]
    oracle = processor(text=[text], images=images or None, **videos, return_tensors="np")
    return text, oracle["input_ids"][0].tolist()


@given(messages=conversations(), tools=st.one_of(st.none(), TOOLS))
@settings(max_examples=60, deadline=None)
def test_ids_of_any_conversation(
    processor: Any, bundle: Bundle, pipeline: Pipeline, messages: list[dict[str, Any]], tools: list[Any] | None
) -> None:
    items = pipeline.items(messages)
    for template in (bundle.chat_template, TOOL_TEMPLATE):
        given_tools = {"tools": tools} if tools and template is TOOL_TEMPLATE else {}
        text, ids = reference(processor, messages, chat_template=template, **given_tools)
        ours = render(template, plain(messages), tools)
        assert ours == text
        assert prompt_ids(ours, items, bundle).tolist() == ids


@given(messages=conversations())
@settings(max_examples=30, deadline=None)
def test_ids_without_the_outer_wrapper(
    processor: Any, bundle: Bundle, pipeline: Pipeline, messages: list[dict[str, Any]]
) -> None:
    """transformers before 5.10: the same prompt without the start before and the end behind each video's frames."""
    card = bundle.manifest.card
    older = replace(bundle, manifest=replace(bundle.manifest, has_outer_video_wrapper=False))
    text, ids = reference(processor, messages)
    kept, at, items = [], 0, pipeline.items(messages)
    outer_start = [card.vision_start_token_id]
    for video in (item for item in items if item.is_video):
        first = bundle.tokenizer.encode(f"<{video.timestamps[0]:.1f} seconds>", add_special_tokens=False).ids
        begin = next(i for i in range(at, len(ids)) if ids[i : i + 1 + len(first)] == outer_start + first)
        end = begin
        for _ in video.timestamps:
            end = ids.index(card.vision_end_token_id, end + 1)
        assert ids[end + 1] == card.vision_end_token_id
        kept += [*ids[at:begin], *ids[begin + 1 : end + 1]]
        at = end + 2
    assert prompt_ids(text, items, older).tolist() == kept + ids[at:]


def test_tools_reach_the_template(bundle: Bundle) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    text = render(TOOL_TEMPLATE, [{"role": "user", "content": "Hello <b>"}], [tool])
    assert '<tools>{"type": "function", "function": {"name": "weather", "parameters": {}}}</tools>' in text
