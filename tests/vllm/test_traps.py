"""What our checks keep from vLLM: refused, with the next request answered as before.

docs/decisions/vllm.md says in words what each would do to an engine without the check. Only our own engine is asked here,
and only what its checks refuse or its own model answers rightly.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import BundleError, InvalidInput
from contract.limits import Limits
from serving.vllm.engine import VllmEngine
from tests.serving.reference import Case, Reference, remove_tensor
from tests.vllm.conftest import KV_BYTES, LOOP
from tests.vllm.test_engine import answer


def with_nan(case: Case) -> Any:
    rows = case.main.copy()
    rows[0, 0] = np.nan
    return {"vision_embeddings": rows}


REFUSED = {
    "a level too few": ("deepstack", lambda case: {"deepstack_embeddings": case.deepstack[:2]}),
    "a row too few": (
        "rows",
        lambda case: {"vision_embeddings": case.main[:-1], "deepstack_embeddings": case.deepstack[:, :-1]},
    ),
    "a value that is not finite": ("finite", with_nan),
    # each is finite, their sum is not
    "a sum that is not finite": (
        "number-format",
        lambda case: {"deepstack_embeddings": np.full_like(case.deepstack, 3e38)},
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_and_the_next_request_is_answered(
    reference: Reference, cases: dict[str, Case], engine: VllmEngine, fault: Any
) -> None:
    case, (check, changed) = cases["one image"], REFUSED[fault]
    with pytest.raises(InvalidInput) as refused:
        answer(engine, case.prompt(reference.card, **changed(case)))
    assert refused.value.check == check
    for name in ("one image", "text", "video"):
        assert answer(engine, cases[name].prompt(reference.card))[0] == cases[name].expected


@pytest.mark.parametrize("how", ["other rows", "other grid"])
def test_a_name_is_of_the_whole_content(
    reference: Reference, cases: dict[str, Case], engine: VllmEngine, how: str
) -> None:
    """Two items that differ in rows or grid alone have two names, so neither answers for the other."""
    case = cases["one image"]
    if how == "other rows":
        other = reference.case("other", "See ", (1, 8, 12), " what is it?", seed=99)
    else:
        other = replace(case, image_grid_thw=np.array([[1, 12, 8]]))
    prompts = [one.prompt(reference.card) for one in (case, other)]
    assert prompts[0].keys != prompts[1].keys
    first = answer(engine, prompts[0])[0]
    second = answer(engine, prompts[1])[0]
    assert first == case.expected
    assert second != first
    if how == "other rows":
        assert second == other.expected


def test_frames_without_a_start_token_are_a_prompt_like_any_other(reference: Reference, engine: VllmEngine) -> None:
    case = reference.case("bare", "Watch ", (3, 8, 4), " and say", seed=21, is_wrapped=False)
    assert answer(engine, case.prompt(reference.card))[0] == case.expected


def test_a_missing_tensor_is_found_before_vllm_starts(reference: Reference, tmp_path: Path) -> None:
    """Half of a tensor that vLLM joins."""
    remove_tensor(reference.language, tmp_path / "hole", "layers.2.mlp.up_proj.weight")
    with pytest.raises(BundleError, match=r"layers\.2\.mlp\.up_proj"):
        VllmEngine.load(tmp_path / "hole", Limits(max_kv_bytes=KV_BYTES), LOOP, "fp32", 1)
