"""Hostile bodies for each door of the gateway, and what their caller saw."""

import http.client
import json
import time
from typing import Any

from hypothesis import strategies as st

from edge_runtime.gateway import (
    anthropic_messages,
    chat_request,
    embeddings,
    ollama,
    rerank,
    responses_request,
    text_completion,
)
from edge_runtime.gateway.app import KINDS, POOLED
from edge_runtime.gateway.sampling_fields import PASSED
from tests.gateway.drawings import data_url, drawn
from tests.gateway.gateway_process import Gateway
from tests.hostile.doors import BROKEN, INTERNAL, REFUSED, SERVED, Outcome, posted
from tests.hostile.files import changed, damaged
from tests.hostile.requests import MAX_TOKENS, values

PICTURE = data_url(drawn(1)[0].image)
SHAPES = {"type": "object", "properties": {"count": {"enum": [1, 2]}}, "required": ["count"]}
_FUNCTION = {"name": "look", "description": "Looks.", "parameters": SHAPES}
_TOOLS = [{"type": "function", "function": _FUNCTION}]
_PARTS = [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "How many?"}]
_CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": _PARTS}]
_CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"count": 1}'}}
_TURNS = [
    {"role": "user", "content": "Look."},
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "2"},
]
_ANTHROPIC = [
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE.partition(",")[2]}},
    {"type": "text", "text": "How many?"},
]
_CLAUDES = {
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {"role": "user", "content": _ANTHROPIC},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {"count": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "2"}]},
    ],
    "tools": [{"name": "look", "description": "Looks.", "input_schema": SHAPES}],
    "tool_choice": {"type": "auto"},
}
_OLLAMA = [{"role": "user", "content": "How many?", "images": [PICTURE.partition(",")[2]]}]
GOOD: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {"messages": _CHAT, "max_tokens": MAX_TOKENS, "stream": True, "stream_options": {"include_usage": True}},
        {"messages": _TURNS, "max_tokens": MAX_TOKENS, "tools": _TOOLS, "tool_choice": "auto", "logprobs": True},
        {"messages": _CHAT, "max_tokens": MAX_TOKENS, "response_format": {"type": "json_object"}, "stop": ["x"]},
    ],
    "/v1/completions": [
        {"prompt": "Tell me", "max_tokens": MAX_TOKENS, "logprobs": 2},
        {"prompt": [72, 105], "max_tokens": MAX_TOKENS, "stream": True, "temperature": 0.5, "seed": 3},
    ],
    "/v1/responses": [
        {
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}],
            "instructions": "Be brief.",
            "max_output_tokens": MAX_TOKENS,
            "tools": [{"type": "function", **_FUNCTION}],
        },
        {
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look."}]},
                {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "a", "output": "2"},
            ],
            "max_output_tokens": MAX_TOKENS,
            "stream": True,
            "text": {"format": {"type": "json_schema", "name": "shapes", "schema": SHAPES}},
            "reasoning": {"effort": "low"},
        },
    ],
    "/v1/messages": [_CLAUDES | {"max_tokens": MAX_TOKENS}, _CLAUDES | {"max_tokens": MAX_TOKENS, "stream": True}],
    "/v1/messages/count_tokens": [_CLAUDES, {"messages": [{"role": "user", "content": "How many?"}]}],
    "/api/chat": [
        {"messages": _OLLAMA, "options": {"num_predict": MAX_TOKENS, "temperature": 0.5}},
        {"messages": _OLLAMA, "options": {"num_predict": MAX_TOKENS}, "stream": False, "format": SHAPES, "think": False},
        {
            "messages": [
                {"role": "user", "content": "Look."},
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]},
                {"role": "tool", "content": "2", "tool_name": "look"},
            ],
            "tools": _TOOLS,
            "options": {"num_predict": MAX_TOKENS},
        },
    ],
    "/tokenize": [{"prompt": "Tell me."}, {"messages": _CHAT, "tools": _TOOLS}],
    "/v1/embeddings": [
        {"input": ["a circle", [72, 105], {"image": PICTURE, "text": "x"}], "dimensions": 16},
        {"messages": _CHAT, "encoding_format": "base64"},
        {"input": "a circle", "instruction": "Find it."},
    ],
    "/v1/rerank": [
        {"query": "a circle", "documents": ["a", {"image": PICTURE}], "top_n": 1, "return_documents": True},
        {"query": {"image": PICTURE}, "documents": [{"content": _PARTS}], "instruction": "Find it."},
    ],
    "/v2/rerank": [{"query": "a circle", "documents": ["a", "b"]}],
}  # fmt: skip
DOORS = (*KINDS, *POOLED)
READ = {  # the names that a door's reader knows, of those that look at more than a chat's
    "/v1/completions": text_completion.READ,
    "/v1/responses": (*responses_request.READ, *responses_request.NEUTRAL),
    "/v1/messages": (*anthropic_messages.READ, *anthropic_messages.NEUTRAL),
    "/v1/messages/count_tokens": anthropic_messages.READ,
    "/api/chat": ollama.READ,
    "/tokenize": text_completion.TOKENIZE,
    "/v1/embeddings": (*embeddings.READ, *embeddings.NEUTRAL),
    "/v1/rerank": (*rerank.READ, *rerank.NEUTRAL),
    "/v2/rerank": (*rerank.READ, *rerank.NEUTRAL),
}
CHAT_FIELDS = (*PASSED, *chat_request.READ, *chat_request.NEUTRAL)
ENDS = {  # the last event of a stream that came to its end
    "/v1/chat/completions": "[DONE]", "/v1/completions": "[DONE]", "/v1/responses": '"type":"response.',
    "/v1/messages": '"type":"message_stop"', "/api/chat": '"done":true',
}  # fmt: skip


def bodies(door: str) -> st.SearchStrategy[bytes]:
    """Good bodies of a door with values changed, dropped and added, with a damaged picture, or with damaged bytes."""
    good = st.sampled_from(GOOD[door])
    names = st.sampled_from(sorted({*READ.get(door, ()), *CHAT_FIELDS}))
    added = st.dictionaries(names, values, max_size=2)
    made = st.one_of(
        good.flatmap(changed),
        st.tuples(good, added).map(lambda two: two[0] | two[1]),
        values,
    )
    written = made.map(lambda body: json.dumps(body).encode())
    data = PICTURE.encode()
    pictured = st.tuples(good.map(lambda body: json.dumps(body).encode()), damaged(data)).map(
        lambda two: two[0].replace(data[30:], two[1][30:])
    )
    return st.one_of(written, written, pictured, good.flatmap(lambda body: damaged(json.dumps(body).encode())))


def ask(gateway: Gateway, door: str, body: bytes) -> Outcome:
    """What the gateway answers. Every error is a typed one, in the form of the door, and names what is wrong."""
    begun = time.monotonic()
    answered = posted(f"{gateway.host}:{gateway.port}", door, body, {"Content-Type": "application/json"})
    if isinstance(answered, Outcome):
        return answered
    answer, text = answered
    return Outcome(judged(door, body, answer, text), f"{answer.status} {text}", time.monotonic() - begun)


def judged(door: str, body: bytes, answer: http.client.HTTPResponse, text: str) -> str:
    """The kind of an answer."""
    if answer.status == 500 or '"internal_error"' in text or "the gateway failed on this request" in text:
        return INTERNAL
    if answer.status == 200:
        is_stream = answer.headers.get_content_type() != "application/json"
        return BROKEN if is_stream and ENDS[door] not in text and "error" not in text else SERVED
    try:
        error = json.loads(text)["error"]
        said = error if isinstance(error, str) else error["message"]
    except (ValueError, LookupError, TypeError):
        return BROKEN
    return REFUSED if answer.status != 400 or names_its_cause(door, body, said) else BROKEN


def names_its_cause(door: str, body: bytes, said: str) -> bool:
    """Whether an error's text holds the name of a field, or says that the body is none."""
    known = {*READ.get(door, ()), *CHAT_FIELDS, *_names(json.loads(body))} if _is_json(body) else set()
    return "the body" in said or any(name in said for name in known if name)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _names(value: Any) -> set[str]:
    if isinstance(value, list):
        return {name for item in value for name in _names(item)}
    return {*value, *(name for item in value.values() for name in _names(item))} if isinstance(value, dict) else set()
