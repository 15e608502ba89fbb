"""What vLLM does with inputs that our checks keep from it. Each harm is shown, and that the check stands before it.

`bare` hands a prompt to vLLM as the engine does, but a prompt that never went through contract.prompt.
"""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from vllm import SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError

from contract.errors import BundleError, InvalidInput
from contract.limits import Limits
from contract.prompt import Prompt
from serving.vllm import prompt as prompt_module
from serving.vllm.arguments import engine_arguments
from serving.vllm.engine import VllmEngine
from serving.vllm.host import Host
from serving.vllm.prompt import engine_input
from tests.conftest import CHECKPOINT
from tests.serving.reference import MAX_NEW_TOKENS, remove_tensor
from tests.vllm.conftest import KV_BYTES, LOOP, run
from tests.vllm.test_engine import answer

NUM_BLOCKS = 17  # 16 hold the longest request


@pytest.fixture
def host(reference):
    limits = Limits(max_kv_bytes=NUM_BLOCKS * 128 * 2048)  # 2 KB a token
    host = Host(engine_arguments(reference.language, limits, "fp32", {}), LOOP, 1)
    yield host
    host.close()


def bare(host, prompt, card):
    async def tokens():
        params = SamplingParams(max_tokens=MAX_NEW_TOKENS, temperature=0, ignore_eos=True, detokenize=False)
        made = engine_input(prompt, card, host.llm.model_config.dtype)
        async for output in host.llm.generate(made, params, f"bare-{next(numbers)}"):
            last = output
        return tuple(last.outputs[0].token_ids)

    return run(tokens())


numbers = iter(range(1 << 30))
MALFORMED = {
    "a level too few": (
        lambda case: {"deepstack_embeddings": case.deepstack[:2]},
        lambda prompt: replace(prompt, deepstack=prompt.deepstack[:2]),
    ),
    "a row too few": (
        lambda case: {"vision_embeddings": case.main[:-1], "deepstack_embeddings": case.deepstack[:, :-1]},
        lambda prompt: replace(prompt, main=prompt.main[:-1], deepstack=prompt.deepstack[:, :-1]),
    ),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_request_would_end_the_engine(reference, cases, engine, host, fault):
    case, (sent, unchecked) = cases["one image"], MALFORMED[fault]
    with pytest.raises(InvalidInput):
        answer(engine, case.prompt(reference.card, **sent(case)))
    assert answer(engine, case.prompt(reference.card))[0] == case.expected

    assert bare(host, cases["text"].prompt(reference.card), reference.card) == cases["text"].expected
    with pytest.raises(EngineDeadError):
        bare(host, unchecked(case.prompt(reference.card)), reference.card)
    with pytest.raises(EngineDeadError):
        bare(host, cases["text"].prompt(reference.card), reference.card)


def with_nan(case):
    rows = case.main.copy()
    rows[0, 0] = np.nan
    return {"vision_embeddings": rows}


def with_overflow(case):
    return {"deepstack_embeddings": np.full_like(case.deepstack, 3e38)}  # each is finite, their sum is not


@pytest.mark.parametrize("fault", [with_nan, with_overflow])
def test_a_value_that_is_not_finite_would_spoil_other_answers(reference, cases, engine, host, monkeypatch, fault):
    case, changed = cases["one image"], fault(cases["one image"])
    with pytest.raises(InvalidInput):
        answer(engine, case.prompt(reference.card, **changed))

    def spoiled():
        """How many of some clean requests, enough to use every block, are answered wrongly."""
        return sum(bare(host, other.prompt(reference.card), reference.card) != other.expected for other in others)

    others = [cases[name] for name in ("text", "several sizes", "video", "multi-turn")] * 8
    assert spoiled() == 0
    monkeypatch.setattr(prompt_module, "_check_sum", lambda *_: None)
    sound = case.prompt(reference.card)
    fields = {"vision_embeddings": "main", "deepstack_embeddings": "deepstack"}
    bare(host, replace(sound, **{fields[name]: values for name, values in changed.items()}), reference.card)
    assert spoiled() > 0


@pytest.mark.parametrize("how", ["other rows", "other grid"])
def test_a_name_that_is_not_of_the_content_would_answer_for_another_picture(reference, cases, engine, monkeypatch, how):
    """vLLM trusts the name: with one that a client chose, or that leaves out the grid, the first picture answers."""
    case = cases["one image"]
    if how == "other rows":
        other = reference.case("other", "See ", (1, 8, 12), " what is it?", seed=99)
    else:
        other = replace(case, image_grid_thw=np.array([[1, 12, 8]]))
        other = replace(other, expected=answer(engine, other.prompt(reference.card))[0])
        assert other.expected != case.expected
    assert answer(engine, case.prompt(reference.card))[0] == case.expected
    assert answer(engine, other.prompt(reference.card))[0] == other.expected

    given = {"other rows": "chosen", "other grid": str(hash(case.main.tobytes()))}[how]
    monkeypatch.setattr(Prompt, "keys", property(lambda prompt: (given,) * len(prompt.items)))
    assert answer(engine, case.prompt(reference.card))[0] == case.expected
    assert answer(engine, other.prompt(reference.card))[0] != other.expected


@pytest.fixture
def stock(reference, tmp_path, monkeypatch):
    """vLLM's own model without its tower: the plugin is kept out, and it wants the image processor's files."""
    monkeypatch.setenv("VLLM_PLUGINS", "none")
    folder = tmp_path / "model"
    shutil.copytree(reference.language, folder)
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        shutil.copyfile(CHECKPOINT / name, folder / name)
    host = Host(engine_arguments(folder, Limits(max_kv_bytes=KV_BYTES), "fp32", {}), LOOP, 1)
    yield host
    host.close()


def test_the_stock_model_without_its_tower_would_drop_deepstack_and_die(reference, cases, stock):
    """Narrow rows are answered wrongly and nothing says so, packed ones end the engine."""
    prompt = cases["one image"].prompt(reference.card)
    narrow = replace(prompt, deepstack=prompt.deepstack[:0])
    assert bare(stock, cases["text"].prompt(reference.card), reference.card) == cases["text"].expected
    assert bare(stock, narrow, reference.card) != cases["one image"].expected
    other = cases["several sizes"].prompt(reference.card)  # not yet in its cache
    with pytest.raises(EngineDeadError):
        bare(stock, other, reference.card)


def test_the_stock_rule_for_frames_would_end_the_engine(reference, engine, stock):
    """A video whose frames stand without `<|vision_start|>` is a prompt like any other to us."""
    case = reference.case("bare", "Watch ", (3, 8, 4), " and say", seed=21, is_wrapped=False)
    prompt = case.prompt(reference.card)
    assert answer(engine, prompt)[0] == case.expected
    with pytest.raises(EngineDeadError):
        bare(stock, replace(prompt, deepstack=prompt.deepstack[:0]), reference.card)


def test_a_missing_tensor_would_be_filled_with_anything(reference, cases, tmp_path):
    """Half of a tensor that vLLM joins."""
    remove_tensor(reference.language, tmp_path / "hole", "layers.2.mlp.up_proj.weight")
    with pytest.raises(BundleError, match=r"layers\.2\.mlp\.up_proj"):
        VllmEngine.load(tmp_path / "hole", Limits(max_kv_bytes=KV_BYTES), LOOP, "fp32", 1)

    host = Host(engine_arguments(tmp_path / "hole", Limits(max_kv_bytes=KV_BYTES), "fp32", {}), LOOP, 1)
    assert bare(host, cases["text"].prompt(reference.card), reference.card) != cases["text"].expected
    host.close()
