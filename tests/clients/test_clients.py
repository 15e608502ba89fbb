"""Real clients, each in an environment of its own, against one gateway and a Triton with the bundled model.

A client's program (programs/) asks in the client's own words and reports the answers. The suite compares them with those
of a plain request, and writes the table of docs/gateway.md. `make test-clients` runs it; CI does not.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.clients.environments import Environment
from tests.clients.programs.asks import HELLO, MAX_TOKENS, SHAPES, WAIT
from tests.clients.table import write_rows
from tests.conftest import CHECKPOINT
from tests.gateway.drawings import drawn
from tests.gateway.gateway_process import Gateway

SEED, QUESTION = 5, "What is at the top left?"  # the bundled model is right whether text or picture comes first
ASKS = ("chat", "picture", "stream", "structured", "tool")
CHAT, RESPONSES, MESSAGES, OLLAMA = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"


@dataclass(frozen=True)
class Client:
    """A row of the table: a client's program and what that client cannot ask for."""

    title: str
    program: str
    environment: Environment
    path: str = CHAT
    lacks: tuple[str, ...] = ()


OPENAI = Environment("openai", ("openai==3.57.0",))
AI_SDK = Environment(
    "ai-sdk",
    ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/openai-compatible@2.0.92", "zod@4.6.7"),
    is_node=True,
)
CLIENTS = [
    Client("openai (Python)", "ask_openai", OPENAI),
    Client("openai (Python)", "ask_openai_responses", OPENAI, RESPONSES),
    Client("openai (node)", "ask_openai", Environment("openai-node", ("openai@6.49.0",), is_node=True)),
    Client("AI SDK", "ask_ai_sdk", AI_SDK),
    Client("AI SDK", "ask_ai_sdk_responses", AI_SDK, RESPONSES),
    Client("LiteLLM", "ask_litellm", Environment("litellm", ("litellm==1.110.2",))),
    Client("LangChain", "ask_langchain", Environment("langchain", ("langchain-openai==1.7.4",))),
    Client(
        "LlamaIndex", "ask_llama_index", Environment("llama-index", ("llama-index-llms-openai-like==0.8.1",))
    ),
    Client("llm", "ask_llm", Environment("llm", ("llm==0.36",)), lacks=("tool",)),
    Client("Instructor", "ask_instructor", Environment("instructor", ("instructor==1.17.0",))),
    Client("Pydantic AI", "ask_pydantic_ai", Environment("pydantic-ai", ("pydantic-ai-slim[openai]==2.68.0",))),
    Client(
        "OpenAI Agents", "ask_openai_agents", Environment("openai-agents", ("openai-agents==0.24.0",)), RESPONSES
    ),
    Client("Haystack", "ask_haystack", Environment("haystack", ("haystack-ai==3.4.1",))),
    Client("smolagents", "ask_smolagents", Environment("smolagents", ("smolagents[openai]==1.26.0",))),
    Client("Ollama (Python)", "ask_ollama", Environment("ollama", ("ollama==0.6.3",)), OLLAMA, lacks=("tool",)),
    Client("Anthropic (Python)", "ask_anthropic", Environment("anthropic", ("anthropic==2.14.0",)), MESSAGES),
    Client("AIPerf", "ask_aiperf", Environment("aiperf", ("aiperf==0.13.0",)), lacks=("structured", "tool")),
]  # fmt: skip
QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[tuple[str, str], list[str]]]:
    made: dict[tuple[str, str], list[str]] = {}
    yield made
    if made:
        write_rows(made)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.program}-{client.environment.name}")
def test_client(client: Client, gateway: Gateway, tmp_path: Path, rows: dict[Any, list[str]]) -> None:
    scene, questions = drawn(SEED)
    (question,) = [one for one in questions if one.text == QUESTION]
    scene.image.save(tmp_path / "picture.png")
    plain = {"messages": [{"role": "user", "content": HELLO}], "max_tokens": MAX_TOKENS}
    greeting = gateway.ask(body=plain)[1]["choices"][0]["message"]["content"]
    names = {"GATEWAY_URL": gateway.url, "QUESTION": question.text, "PICTURE": tmp_path / "picture.png"}
    names |= {"TOKENIZER": CHECKPOINT, "HOME": tmp_path, "PATH": os.environ["PATH"]} | QUIET
    done = subprocess.run(
        client.environment.command(client.program),
        cwd=tmp_path,
        env={name: str(value) for name, value in names.items()},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.strip().splitlines()[-1])
    failed = {name: answer["error"] for name, answer in said.items() if "error" in answer}
    assert not failed, failed
    answers = {name: answer["answer"] for name, answer in said.items()}
    assert answers.keys() == set(ASKS) - set(client.lacks)
    if client.program == "ask_aiperf":  # it counts tokens, and shows no text
        assert all(0 < tokens <= 8 for tokens in answers.values()), answers
    else:
        _check(answers, greeting, question.answer)
    rows[client.title, client.path] = [
        client.environment.version,
        *["yes" if name in answers else "—" for name in ASKS],
    ]


def _check(answers: dict[str, Any], greeting: str, right: str) -> None:
    assert answers["chat"] == greeting
    assert answers["picture"] == right
    assert "".join(answers["stream"]) == right
    assert len([piece for piece in answers["stream"] if piece]) > 5
    assert Draft202012Validator(SHAPES).is_valid(answers["structured"])
    if "tool" in answers:
        assert answers["tool"]["name"] == "wait"
        assert Draft202012Validator(WAIT).is_valid(answers["tool"]["arguments"])
