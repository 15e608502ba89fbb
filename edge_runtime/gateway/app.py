"""The gateway as an ASGI application: which path leads where."""

from starlette.applications import Starlette

from edge_runtime.gateway import anthropic_messages, ollama, responses
from edge_runtime.gateway.about import About
from edge_runtime.gateway.anthropic_messages import AnthropicMessage, read_anthropic, read_count, token_count
from edge_runtime.gateway.callers import Callers
from edge_runtime.gateway.chat import Chat
from edge_runtime.gateway.chat_request import read_chat
from edge_runtime.gateway.completion import Completion
from edge_runtime.gateway.door import Door, Endpoint
from edge_runtime.gateway.embeddings import read_embeddings
from edge_runtime.gateway.kinds import Kind
from edge_runtime.gateway.ollama import OllamaAnswer, read_ollama
from edge_runtime.gateway.pooled import Pooled
from edge_runtime.gateway.preparation import Preparation
from edge_runtime.gateway.rerank import read_rerank
from edge_runtime.gateway.responses import Response as ModelResponse
from edge_runtime.gateway.responses_request import read_response
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.shell import application
from edge_runtime.gateway.text_completion import TextCompletion, read_completion, read_tokenize
from edge_runtime.gateway.triton import Client, Triton
from edge_runtime.pipeline import Pipeline

KINDS = {
    "/v1/chat/completions": Kind(read_chat, Completion),
    "/v1/completions": Kind(read_completion, TextCompletion),
    "/v1/responses": Kind(
        read_response, ModelResponse, names_events=True, ends_with_done=False, error_event=responses.error_event
    ),
    "/v1/messages": Kind(
        read_anthropic, AnthropicMessage, names_events=True, ends_with_done=False,
        error_event=anthropic_messages.error_body, error_body=anthropic_messages.error_body,
    ),
    "/v1/messages/count_tokens": Kind(read_count, None, token_count, error_body=anthropic_messages.error_body),
    "/api/chat": Kind(
        read_ollama, OllamaAnswer, ends_with_done=False, is_lines=True,
        error_event=ollama.error_body, error_body=ollama.error_body,
    ),
    "/tokenize": Kind(read_tokenize, None),
}  # fmt: skip
ERROR_BODIES = {"/v1/messages": anthropic_messages.error_body, "/api/": ollama.error_body}  # by how a path begins
POOLED = {
    "/v1/embeddings": Kind(read_embeddings, None),
    "/v1/rerank": Kind(read_rerank, None),
    "/v2/rerank": Kind(read_rerank, None),  # Cohere's newer client
}


def create_app(pipeline: Pipeline, client: Client, settings: Settings) -> Starlette:
    """The application.

    Args:
        pipeline: encodes; its access decides which URLs and files it may read.
        client: speaks to the server behind the gateway; the application closes it at its end.
        settings: what the gateway allows.
    """
    callers = Callers(settings)
    triton = Triton(client, pipeline.encoder.bundle.manifest.card.encoder_fingerprint)
    preparation = Preparation(pipeline, settings)
    door = Door(settings, callers, lambda: preparation.num_waiting)
    chat = Chat(pipeline, client, settings, door, preparation, triton)
    pooled = Pooled(pipeline.encoder.bundle.manifest.card, client, settings, door, preparation, triton)
    answers = dict.fromkeys(KINDS, chat.answer) | dict.fromkeys(POOLED, pooled.answer)

    async def close() -> None:
        preparation.close()
        chat.close()
        await triton.close()
        await client.close()

    endpoints = {path: Endpoint(door, kind, answers[path]) for path, kind in (KINDS | POOLED).items()}
    about = About(settings, callers, door.metrics, triton)
    ollamas = {"/api/tags": about.tags, "/api/version": about.version}
    return application(settings, door, about, endpoints, close, ollamas, ERROR_BODIES)
