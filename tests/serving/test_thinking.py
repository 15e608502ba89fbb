"""A budget of thinking tokens: the closing mark comes when it is spent, and nothing else about an answer changes."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

from contract.language import read_language_card
from contract.limits import Limits
from contract.prompt import check_prompt
from contract.sampling import Sampling
from contract.thinking import END, START
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.transformers_engine.thinking import Thinking
from tests.serving.reference import Reference

NUM_TOKENS = 14


@pytest.fixture(scope="module")
def thinker(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model with a vocabulary that has the two marks as tokens."""
    folder = tmp_path_factory.mktemp("thinker") / "language"
    shutil.copytree(reference.language, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(START, special=False), AddedToken(END, special=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(f"{START}{END}")  # by it vLLM's engine knows a model that thinks
    return folder


@pytest.fixture(scope="module")
def engine(thinker: Path) -> Iterator[Any]:
    engine = TransformersEngine(load_language_model(thinker, "fp32"))
    yield engine
    engine.close()


async def answer(engine: Any, folder: Path, ids: list[int], **sampling: Any) -> list[int]:
    card = read_language_card(folder)
    prompt = check_prompt(card, Limits(), input_ids=np.array(ids, np.int64))
    chosen = Sampling(ignore_eos=True, **({"max_tokens": NUM_TOKENS} | sampling))
    return [token async for delta in engine.generate(prompt, chosen) for token in delta.token_ids]


async def check(engine: Any, folder: Path) -> None:
    """The budget's answers are the free answer up to the budget, the mark, and what the model says behind it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    begun = tokenizer.encode(f"What is it?{START}").ids
    free = await answer(engine, folder, begun)
    assert end not in free
    for ids, budget, num_free in ((begun, 0, 0), (begun, 5, 5), ([*begun, 65, 66], 5, 3)):
        free = await answer(engine, folder, ids)
        found = await answer(engine, folder, ids, thinking_token_budget=budget)
        assert found[: num_free + 1] == [*free[:num_free], end], budget
        assert found[num_free + 1 :] == await answer(
            engine, folder, [*ids, *found[: num_free + 1]], max_tokens=NUM_TOKENS - num_free - 1
        )
    quiet = tokenizer.encode("What is it?").ids
    for ids in (begun, quiet, [*begun, end]):
        assert await answer(engine, folder, ids, thinking_token_budget=500) == await answer(engine, folder, ids)
    for ids in (quiet, [*begun, end]):  # no thought is open
        assert await answer(engine, folder, ids, thinking_token_budget=1) == await answer(engine, folder, ids)


def test_the_mark_comes_when_the_budget_is_spent(engine: TransformersEngine, thinker: Path) -> None:
    asyncio.run(check(engine, thinker))


def test_a_grammar_that_has_no_thoughts_outranks_the_budget(engine: TransformersEngine, thinker: Path) -> None:
    tokenizer = Tokenizer.from_file(str(thinker / "tokenizer.json"))
    ids = tokenizer.encode(f"What is it?{START}").ids
    form = {"structured_outputs": {"regex": "[a-c]{12}"}}
    found = asyncio.run(answer(engine, thinker, ids, thinking_token_budget=3, **form))
    assert len(tokenizer.decode(found)) >= 12
    assert tokenizer.token_to_id(END) not in found


def test_marks_of_several_tokens(reference: Reference) -> None:
    """A tokenizer without the marks writes them letter by letter; the model may also write them itself."""
    start, end = (reference.tokenizer.encode(mark).ids for mark in (START, END))
    thinking = Thinking(2, reference.tokenizer, [1, 2])
    assert thinking.forced is None
    for token in [*start, 5, 6]:
        assert thinking.forced is None
        thinking.accept(token)
    for token in end:
        assert thinking.forced == token
        thinking.accept(token)
    for token in [7, 8, 9, *start, 3]:  # a second thought has a budget of its own
        assert thinking.forced is None
        thinking.accept(token)
    for token in end:  # the model ends it by itself, while the budget is spent within the mark
        assert thinking.forced in (None, token)
        thinking.accept(token)
    assert thinking.forced is None
