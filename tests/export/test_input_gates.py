"""The gates of processor and prompts: templates and conversations beyond the export's own, and mutations they must see."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from contract.errors import ParityError
from edge_runtime.bundle import Bundle
from edge_runtime.families import qwen3_vl as family
from edge_runtime.items import video_options
from edge_runtime.prompts import chat_template
from export.gate.conversations import DOCUMENTS, TOOL, media
from export.gate.processor import processor_gate
from export.gate.prompt import Prompts, prompt_gate
from export.gate.reference import load_reference, quiet
from tests.conftest import CHECKPOINT
from tests.export.layouts import GENERATION

# The constructs of Qwen3-VL's Instruct and Thinking templates: counters of pictures, tools before the system message, a
# search for the last question from the end, reasoning cut out of an answer, results of tools in one turn of the user.
THINKING = """
{%- set image_count = namespace(value=0) %}
{%- set video_count = namespace(value=0) %}
{%- macro render_content(content) %}
    {%- if content is string %}{{- content }}
    {%- else %}
        {%- for item in content %}
            {%- if 'image' in item or 'image_url' in item or item.type == 'image' %}
                {%- set image_count.value = image_count.value + 1 %}
                {%- if add_vision_id %}Picture {{ image_count.value }}: {% endif -%}
                <|vision_start|><|image_pad|><|vision_end|>
            {%- elif 'video' in item or item.type == 'video' %}
                {%- set video_count.value = video_count.value + 1 %}
                {%- if add_vision_id %}Video {{ video_count.value }}: {% endif -%}
                <|vision_start|><|video_pad|><|vision_end|>
            {%- elif 'text' in item %}{{- item.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- render_content(messages[0].content) + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + render_content(messages[0].content) + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" %}
        {%- set content = render_content(message.content) %}
        {%- if not(content.startswith('<tool_response>') and content.endswith('</tool_response>')) %}
            {%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- set image_count.value = 0 %}{%- set video_count.value = 0 %}
{%- for message in messages %}
    {%- set content = render_content(message.content) %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}{%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}{{- '<|im_start|>' + message.role + '\\n' + content }}{%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"""
STRICT = """{{ bos_token }}{% for m in messages %}{% if loop.index0 % 2 != (m.role == 'assistant') | int %}
{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}]{% if m.content is string %}{{ m.content | trim }}{% else %}
{% for p in m.content %}{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% continue %}{% endif %}
{{ p.text | default('') }}{% endfor %}{% endif %}{{ eos_token }}{% endfor %}{% for d in documents or [] %}{{ d.title }}{% endfor %}
{{ strftime_now('%Y-%m-%d') }}{{ pad_token }}{{ tools | tojson(indent=2) if tools else '' }}"""
TEMPLATES = {"bundled": None, "thinking": THINKING, "generation": GENERATION, "strict": STRICT}

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["<|im_end|>", " \n", "<think>\na\n</think>\n\nb", "<|vision_start|>", "1234567890"]),
)
PICTURE, OTHER, VIDEO = media()
PARTS = st.one_of(TEXTS.map(lambda text: {"type": "text", "text": text}), st.sampled_from([PICTURE, OTHER, VIDEO]))
CALLS = st.lists(
    st.builds(
        lambda name, value: {"type": "function", "function": {"name": name, "arguments": value}},
        TEXTS, st.one_of(st.dictionaries(TEXTS, TEXTS, max_size=2), TEXTS),
    ),
    max_size=2,
)  # fmt: skip
MESSAGES = st.builds(
    lambda role, content, extra: {"role": role, "content": content, **extra},
    st.sampled_from(["user", "user", "assistant", "assistant", "system", "tool"]),
    st.one_of(TEXTS, st.lists(PARTS, max_size=3)),
    st.one_of(
        st.just({}),
        st.builds(
            lambda name, text: {name: text}, st.sampled_from(["reasoning_content", "reasoning", "thinking"]), TEXTS
        ),
        CALLS.map(lambda calls: {"tool_calls": calls}),
    ),
)
OPTIONS = st.fixed_dictionaries(
    {
        "add_generation_prompt": st.booleans(),
        "tools": st.sampled_from([None, [TOOL]]),
        "documents": st.sampled_from([None, DOCUMENTS]),
        "variables": st.sampled_from([{}, {"add_vision_id": True}, {"enable_thinking": False}]),
    }
)
NUM_EACH = 250  # conversations for each of four templates


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    with quiet():
        yield load_reference(CHECKPOINT, "qwen3_vl")


def with_template(reference: Any, bundle: Bundle, template: str | None) -> Prompts:
    prompts = Prompts(reference, bundle if template is None else replace(bundle, chat_template=template))
    prompts.template = template or bundle.chat_template
    return prompts


@pytest.mark.parametrize("name", TEMPLATES)
def test_any_conversation_in_any_template(reference: Any, bundle: Bundle, name: str) -> None:
    prompts, seen = with_template(reference, bundle, TEMPLATES[name]), {"prompts": 0, "refusals": 0}

    @given(messages=st.lists(MESSAGES, min_size=1, max_size=5), options=OPTIONS, continued=st.booleans())
    @settings(max_examples=NUM_EACH, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def check(messages: list[dict[str, Any]], options: dict[str, Any], continued: bool) -> None:
        if continued:
            options = options | {"add_generation_prompt": False, "continue_final_message": True}
        kind, difference = prompts.compare(messages, options)
        assert not difference
        seen[kind] += 1

    check()
    assert seen["prompts"] > NUM_EACH // 10
    assert sum(seen.values()) >= NUM_EACH


def test_the_matrix_in_every_template(reference: Any, bundle: Bundle) -> None:
    from export.gate.conversations import cases

    for template in (THINKING, GENERATION, STRICT):
        prompts = with_template(reference, bundle, template)
        kinds = [prompts.compare(messages, options) for _, messages, options in cases()]
        assert [difference for _, difference in kinds if difference] == []


def changed_token(bundle: Bundle) -> Bundle:
    values = json.loads(bundle.tokenizer.to_str())
    tokens = {token["content"]: token for token in values["added_tokens"]}
    first, second = tokens["<tool_call>"], tokens["</tool_call>"]
    first["content"], second["content"] = second["content"], first["content"]
    return replace(bundle, tokenizer=Tokenizer.from_str(json.dumps(values)))


def changed_splitting(bundle: Bundle) -> Bundle:
    values = json.loads(bundle.tokenizer.to_str())
    values["normalizer"] = {"type": "Lowercase"}
    return replace(bundle, tokenizer=Tokenizer.from_str(json.dumps(values)))


PROMPT_MUTATIONS = {
    "a swapped token": changed_token,
    "another normaliser": changed_splitting,
    "a dropped line break": lambda bundle: replace(
        bundle, chat_template=bundle.chat_template.replace("<|im_start|>assistant\n", "<|im_start|>assistant")
    ),
    "another role": lambda bundle: replace(bundle, chat_template=bundle.chat_template.replace("message.role", "'user'")),
    "no wrapper": lambda bundle: replace(bundle, manifest=replace(bundle.manifest, has_outer_video_wrapper=False)),
    "swapped pads": lambda bundle: replace(
        bundle,
        manifest=replace(
            bundle.manifest,
            card=replace(
                bundle.manifest.card,
                image_token_id=bundle.manifest.card.video_token_id,
                video_token_id=bundle.manifest.card.image_token_id,
            ),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutate", PROMPT_MUTATIONS.values(), ids=PROMPT_MUTATIONS)
def test_a_wrong_prompt_is_seen(reference: Any, bundle: Bundle, mutate: Any) -> None:
    with pytest.raises(ParityError, match=r"differs? from transformers|differ\)"):
        prompt_gate(reference, mutate(bundle))


def test_a_lost_reasoning_is_seen(reference: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = with_template(reference, bundle, THINKING)
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "A star.", "reasoning": "Five."}]
    assert prompts.compare(messages, {"add_generation_prompt": True}) == ("prompts", "")
    monkeypatch.setattr(chat_template, "REASONING", ("reasoning_content",))
    assert "at character" in prompts.compare(messages, {"add_generation_prompt": True})[1]


def changed_video(**values: Any) -> Any:
    return lambda bundle: replace(
        bundle, manifest=replace(bundle.manifest, video=replace(bundle.manifest.video, **values))
    )


def changed_image(**values: Any) -> Any:
    return lambda bundle: replace(
        bundle, manifest=replace(bundle.manifest, image=replace(bundle.manifest.image, **values))
    )


PROCESSOR_MUTATIONS = {
    "another filter": changed_image(resample=2),
    "another video filter": changed_video(resample=2),
    "another budget": changed_image(max_pixels=25600 - 1024),
    "another mean": changed_image(mean=(0.5, 0.48, 0.5)),
    "another rate": changed_video(fps=2.1),
    "more frames": changed_video(min_frames=5),
    "fewer frames": changed_video(max_frames=767),
    "another video budget": changed_video(max_pixels=204800 - 2048),
}


@pytest.mark.parametrize("mutate", PROCESSOR_MUTATIONS.values(), ids=PROCESSOR_MUTATIONS)
def test_a_wrong_processor_is_seen(reference: Any, bundle: Bundle, mutate: Any) -> None:
    with pytest.raises(ParityError, match="otherwise than transformers"):
        processor_gate(reference, mutate(bundle))


class Places(np.ndarray):
    """Places of frames that are rounded by another rule than numpy's, which takes the even frame at a half."""

    rule: Any

    def round(self, *_: Any, **__: Any) -> Any:
        return self.rule(np.asarray(self))


class Floor(Places):
    rule = staticmethod(np.floor)


class Single(Places):
    """Products in float32: one frame of a few long videos moves."""

    rule = staticmethod(lambda places: places.astype(np.float32).round())


@pytest.mark.parametrize("places", [Floor, Single])
def test_frames_rounded_otherwise_are_seen(
    reference: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, places: type[Places]
) -> None:
    linspace = np.linspace

    class Numpy:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        @staticmethod
        def linspace(*args: Any) -> Any:
            return linspace(*args).view(places)

    monkeypatch.setattr(video_options, "np", Numpy())
    with pytest.raises(ParityError, match="frame"):
        processor_gate(reference, bundle)


def test_the_right_processor_passes(reference: Any, bundle: Bundle) -> None:
    assert len(processor_gate(reference, bundle)) == 5


def test_times_written_otherwise_are_seen(reference: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "timestamps", lambda indices, fps, depth: tuple(i / fps for i in indices[::depth]))
    with pytest.raises(ParityError, match=r"times|token"):
        prompt_gate(reference, bundle)


def test_numbers_of_frames_are_whole(bundle: Bundle) -> None:
    assert all(math.floor(row["cases"]) > 0 for row in bundle.manifest.gates)


def test_inspect_shows_what_was_compared(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edge_runtime.__main__ import main

    assert main(["inspect", "--bundle", str(bundle_folder)]) == 0
    shown = capsys.readouterr().out
    for words in (
        "processor  pictures: grid and every pixel",
        "prompt     token ids of conversations",
        "graph      image_embeds",
    ):
        assert words in shown
