"""Embeddings and ranks through a real gateway and Triton: those of transformers' whole model, with the official client."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModelForImageTextToText

from edge_runtime import GrpcClient, Pipeline
from edge_runtime.prompts.retrieval import embedding_messages, rerank_messages
from edge_runtime.served_embedder import ServedEmbedder
from serving.triton.launcher import TritonServer
from tests.conftest import CHECKPOINT
from tests.engine import ENGINE, settings
from tests.gateway.drawings import data_url, drawn, picture_part
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.processor import load_processor

NEAR = 2e-3  # rows travel in float16
TEXTS = ["a red circle", "There are two shapes.", "describe"]
ARGUMENTS = {"engine_args": {"runner": "pooling"}} if ENGINE == "vllm" else {}
PICTURE = {"type": "image"}


class Whole:
    """transformers' own model and processor of the bundled checkpoint."""

    def __init__(self) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
        self.processor = load_processor(CHECKPOINT)

    def state(self, messages: list[Any], *pictures: Image.Image) -> torch.Tensor:
        """The state (H,) behind the last token of a conversation with these pictures."""
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = self.processor(text=[text], images=list(pictures) or None, return_tensors="pt")
        self.model.model.rope_deltas = None
        with torch.no_grad():
            state: torch.Tensor = self.model.model(**inputs).last_hidden_state[0, -1]
        return state

    def embedding(self, parts: list[Any], *pictures: Image.Image, instruction: str | None = None) -> NDArray[Any]:
        state = self.state(embedding_messages(parts, instruction), *pictures)
        return torch.nn.functional.normalize(state, dim=0).numpy()

    def score(self, query: str, document: list[Any], pictures: list[Image.Image], ids: tuple[int, int]) -> float:
        state = self.state(rerank_messages([text(query)], document), *pictures)
        weight = self.model.lm_head.weight.detach()
        return float(torch.sigmoid((weight[ids[0]] - weight[ids[1]]) @ state))


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


@pytest.fixture(scope="module")
def whole() -> Whole:
    return Whole()


@pytest.fixture(scope="module")
def answers(language_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, int]]:
    """The bundled language model with the tokens of a reranker, and their ids."""
    folder = tmp_path_factory.mktemp("reranker") / "language"
    shutil.copytree(language_folder, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in ("yes", "no")])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, (tokenizer.token_to_id("yes"), tokenizer.token_to_id("no"))


@pytest.fixture(scope="module")
def reranker(answers: Any) -> Iterator[TritonServer]:
    with TritonServer(settings(answers[0], dtype="fp32", **ARGUMENTS)) as server:
        yield server


@pytest.fixture(scope="module")
def retrieval(bundle_folder: Path, reranker: TritonServer) -> Iterator[Gateway]:
    with gateway_process(bundle_folder, reranker.grpc_url) as gateway:
        yield gateway


def vectors(answer: openai.types.CreateEmbeddingResponse) -> NDArray[np.float32]:
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return np.array([one.embedding for one in answer.data], np.float32)


def test_texts_as_openai_sends_them(retrieval: Gateway, whole: Whole) -> None:
    """The client asks for base64 by itself; floats are the same, a short vector is the beginning of the long one."""
    client = retrieval.client()
    found = vectors(client.embeddings.create(model="edge_vlm", input=TEXTS))
    expected = np.stack([whole.embedding([text(words)]) for words in TEXTS])
    assert np.abs(found - expected).max() < NEAR
    answer = client.embeddings.create(model="edge_vlm", input=TEXTS[0], encoding_format="float")
    assert np.array_equal(vectors(answer)[0], found[0])
    assert answer.usage.total_tokens == answer.usage.prompt_tokens > 0
    short = vectors(client.embeddings.create(model="edge_vlm", input=TEXTS, dimensions=24))
    cut = found[:, :24] / np.linalg.norm(found[:, :24], axis=1, keepdims=True)
    assert np.allclose(short, cut, atol=1e-6)
    ids = whole.processor.tokenizer(TEXTS[1]).input_ids
    by_ids = vectors(client.embeddings.create(model="edge_vlm", input=[ids, ids]))
    assert np.array_equal(by_ids[0], by_ids[1])
    assert not np.allclose(by_ids[0], found[1], atol=1e-2)  # ids meet no template


def test_pictures_in_every_form(retrieval: Gateway, whole: Whole) -> None:
    scene = drawn(1)[0].image
    url, ask = data_url(scene), "where?"
    alone, both = whole.embedding([PICTURE], scene), whole.embedding([PICTURE, text(ask)], scene)
    guided = whole.embedding([PICTURE], scene, instruction="Find the picture")  # a full stop is added
    bodies: list[tuple[Any, Any]] = [
        ({"input": {"image": url}}, alone),
        ({"input": [{"text": ask, "image": {"url": url}}]}, both),
        ({"input": {"content": [picture_part(scene), text(ask)]}}, both),
        ({"input": {"image": url}, "instruction": "Find the picture"}, guided),
        ({"messages": [*embedding_messages([picture_part(scene), text(ask)])]}, both),
        (
            {
                "messages": [
                    *embedding_messages([picture_part(scene), text(ask)]),
                    {"role": "assistant", "content": [text("")]},
                ],
                "continue_final_message": True,
            },
            both,
        ),
    ]
    for body, expected in bodies:
        status, answer, _ = retrieval.ask("/v1/embeddings", body)
        assert status == 200, answer
        assert np.abs(np.array(answer["data"][0]["embedding"]) - expected).max() < NEAR, body.keys()
    assert not np.allclose(alone, both, atol=NEAR)
    assert not np.allclose(alone, guided, atol=NEAR)


def test_many_at_once_come_in_order(retrieval: Gateway, whole: Whole) -> None:
    scenes = [drawn(seed)[0].image for seed in range(9)]
    status, answer, _ = retrieval.ask("/v1/embeddings", {"input": [{"image": data_url(scene)} for scene in scenes]})
    assert status == 200, answer
    found = np.array([one["embedding"] for one in answer["data"]])
    expected = np.stack([whole.embedding([PICTURE], scene) for scene in scenes])
    assert np.abs(found - expected).max() < NEAR


def test_documents_are_ranked(retrieval: Gateway, whole: Whole, answers: Any) -> None:
    scene, query = drawn(2)[0].image, "Is there a circle?"
    documents = ["a red circle", {"image": data_url(scene)}, {"text": "look", "image": data_url(scene)}, "nothing"]
    forms: list[tuple[list[Any], list[Image.Image]]] = [
        ([text("a red circle")], []),
        ([PICTURE], [scene]),
        ([PICTURE, text("look")], [scene]),
        ([text("nothing")], []),
    ]
    expected = np.array([whole.score(query, parts, pictures, answers[1]) for parts, pictures in forms])
    body = {"query": query, "documents": documents, "return_documents": True}
    for path in ("/v1/rerank", "/v2/rerank"):
        status, answer, _ = retrieval.ask(path, body)
        assert status == 200, answer
        places = [result["index"] for result in answer["results"]]
        assert places == np.argsort(-expected, kind="stable").tolist()
        assert np.abs([result["relevance_score"] for result in answer["results"]] - expected[places]).max() < NEAR
    assert answer["results"][places.index(0)]["document"] == {"text": "a red circle"}
    _, best, _ = retrieval.ask("/v1/rerank", body | {"top_n": 1, "return_documents": None})
    (result,) = best["results"]
    assert result["index"] == places[0]
    assert "document" not in result
    _, seen, _ = retrieval.ask("/v1/rerank", {"query": {"image": data_url(scene)}, "documents": documents[:2]})
    assert len(seen["results"]) == 2  # a query's picture stands in every conversation


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"input": "a", "dimensions": 0}, "dimensions", "a whole number from 1"),
        ({"input": "a", "dimensions": 193}, "dimensions", "dimensions is 193, 1 to 192 are allowed"),
        ({"input": ""}, "input", "a text, token ids, or an object"),
        ({"input": []}, "input", "has 0 entries"),
        ({"input": ["a", {"picture": "x"}]}, "input.[1].picture", "is unknown"),
        ({"input": {"image": "cat.png"}}, "input.image", "a URL that begins with data:"),
        ({"input": [{"image": "data:image/png;base64,AAAA"}]}, "input.[0].image", "picture"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "one of float, base64"),
        ({"input": "a", "messages": []}, "input", "send one of them"),
        ({}, "input", "send one of them"),
        ({"input": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "not supported"),
        ({"input": [[1, 2, 100000]]}, None, "input_ids"),
        ({"input": "a", "model": "clip"}, "model", "served here are"),
        ({"input": "a", "task": "sing"}, "task", "task is 'sing', which is not supported here"),
    ],
)
def test_bad_input_is_refused(retrieval: Gateway, body: dict[str, Any], param: str | None, said: str) -> None:
    status, answer, _ = retrieval.ask("/v1/embeddings", body)
    assert status == (404 if param == "model" else 400), answer
    assert said in answer["error"]["message"]
    if param is not None:
        assert answer["error"]["param"] == param


def test_bad_ranks_are_refused(retrieval: Gateway) -> None:
    for body, param in (
        ({"query": "a"}, "documents"),
        ({"query": "a", "documents": []}, "documents"),
        ({"documents": ["a"]}, "query"),
        ({"query": [1, 2], "documents": ["a"]}, "query"),
        ({"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "a", "documents": ["a"], "task": "embed"}, "task"),
    ):
        status, answer, _ = retrieval.ask("/v1/rerank", body)
        assert (status, answer["error"]["param"]) == (400, param), answer


@pytest.mark.skipif(ENGINE == "vllm", reason="the session's server answers with tokens")
def test_a_model_without_the_task_says_so(gateway: Gateway) -> None:
    status, answer, _ = gateway.ask("/v1/rerank", {"query": "a", "documents": ["b"]})
    assert status == 400
    assert "task is 'score', this server's model does: generate, embed" in answer["error"]["message"]


def test_in_python(pipeline: Pipeline, reranker: TritonServer, whole: Whole) -> None:
    scene = drawn(1)[0].image
    file = io.BytesIO()
    scene.save(file, "PNG")
    with GrpcClient(reranker.grpc_url) as client:
        embedder = ServedEmbedder(pipeline, client)
        found = embedder.pictures([scene, file.getvalue()])
        scores = embedder.scores("Is there a circle?", [scene, drawn(2)[0].image])
        texts = embedder.texts(TEXTS, dimensions=8)
    assert np.abs(found - whole.embedding([PICTURE], scene)).max() < NEAR
    assert all(0 < score < 1 for score in scores)
    assert texts.shape == (3, 8)
    assert base64.b64decode(data_url(scene).partition(",")[2]) == file.getvalue()
