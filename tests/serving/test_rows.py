"""Dropped and copied rows: positions are those of the whole prompt, answers those of transformers at these positions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from contract.errors import InvalidInput
from contract.limits import Limits
from contract.prompt import Prompt, check_prompt
from contract.rows import RowMasks
from serving.engine import check_kept, takes_dropped_rows
from serving.triton.launcher import TritonServer
from tests.serving.reference import FINGERPRINT, MAX_NEW_TOKENS, Case, Reference, encoded_inputs
from tests.serving.wire import stream, tensors, unary

SHORT = 8  # tokens


def masks(case: Case, seed: int, *, drops: bool, copies: bool) -> RowMasks:
    """Random masks of a video: the first frame is whole, every frame keeps a row, copies have a row to copy."""
    (t, h, w), random = case.video_grid_thw[0], np.random.default_rng(seed)
    kept = random.random((t, h * w // 4)) < (0.5 if drops else 2)
    kept[0] = True
    kept[:, 0] = True
    copied = random.random(kept.shape) < (0.4 if copies else -1)
    copied[0] = False
    copied[1:] &= kept[1:] & kept[:-1]
    return RowMasks(kept, copied)


def request(case: Case, chosen: RowMasks) -> dict[str, NDArray]:
    """The wire's tensors of a case of one video, rows and pads left out as the masks say."""
    made, kept, sent = tensors(case, sampling={"max_tokens": SHORT}), chosen.kept.ravel(), chosen.is_sent.ravel()
    is_token = np.ones(len(case.input_ids), bool)
    is_token[np.isin(case.input_ids, (261, 262))] = kept
    made["input_ids"] = case.input_ids[is_token]
    made["vision_embeddings_fp32"] = case.main[sent]
    made["deepstack_embeddings_fp32"] = case.deepstack[:, sent]
    return made | {"vision_rows_kept": kept, "vision_rows_copied": chosen.copied.ravel()}


def checked(case: Case, chosen: RowMasks, reference: Reference) -> Prompt:
    made = request(case, chosen)
    names = ("vision_embeddings_fp32", "deepstack_embeddings_fp32", "vision_rows_kept", "vision_rows_copied")
    return check_prompt(
        reference.card,
        Limits(),
        input_ids=made["input_ids"],
        embeddings={name: made[name] for name in names},
        video_grid_thw=made["video_grid_thw"],
        encoder_fingerprint=FINGERPRINT,
    )


def whole_positions(case: Case, reference: Reference) -> tuple[NDArray[np.int64], int]:
    """transformers' positions (3, S) of the whole prompt, and the next one."""
    ids = torch.tensor(case.input_ids)[None]
    kinds = (ids == 261) * 1 + (ids == 262) * 2
    positions, delta = reference.model.model.get_rope_index(
        input_ids=ids, mm_token_type_ids=kinds, video_grid_thw=torch.tensor(case.video_grid_thw)
    )
    return positions[:, 0].numpy(), int(delta[0, 0]) + ids.shape[1]


@torch.no_grad()
def answer(prompt: Prompt, positions: NDArray[np.int64], following: int, reference: Reference) -> tuple[int, ...]:
    """transformers' greedy tokens at given positions, every token over the whole sequence."""
    tokens: list[int] = []
    for _ in range(SHORT):
        inputs = encoded_inputs(prompt, reference.card, torch.float32, tuple(tokens))
        after = np.broadcast_to(following + np.arange(len(tokens)), (3, len(tokens)))
        inputs["position_ids"] = torch.tensor(np.concatenate([positions, after], axis=1))[:, None]
        logits = reference.model(**inputs, use_cache=False).logits
        tokens.append(int(logits[0, -1].argmax()))
    return tuple(tokens)


@pytest.mark.parametrize("seed", range(5))
def test_positions_are_those_of_the_whole_prompt(cases: dict[str, Case], reference: Reference, seed: int) -> None:
    case = cases["video"]
    chosen = masks(case, seed, drops=True, copies=False)
    prompt = checked(case, chosen, reference)
    positions, delta = prompt.positions(reference.card)
    expected, following = whole_positions(case, reference)
    is_token = np.ones(len(case.input_ids), bool)
    is_token[case.input_ids == 262] = chosen.kept.ravel()
    np.testing.assert_array_equal(positions, expected[:, is_token])
    assert delta + prompt.input_ids.size == following


def test_answers_of_dropped_rows(cases: dict[str, Case], reference: Reference, server: TritonServer) -> None:
    """And what they would be if positions were counted anew, or the mask put rows at the first places."""
    case, num_other = cases["video"], 0
    for seed in range(3):
        chosen = masks(case, seed, drops=True, copies=False)
        prompt = checked(case, chosen, reference)
        positions, following = whole_positions(case, reference)
        is_token = np.ones(len(case.input_ids), bool)
        is_token[case.input_ids == 262] = chosen.kept.ravel()
        expected = answer(prompt, positions[:, is_token], following, reference)
        assert stream(server.grpc_url, request(case, chosen))[0] == expected
        size = prompt.input_ids.size
        num_other += answer(prompt, np.broadcast_to(np.arange(size), (3, size)), size, reference) != expected
        first = np.sort(~chosen.kept, axis=1) == 0  # as many of each frame, at its first places
        is_token[case.input_ids == 262] = first.ravel()
        num_other += answer(prompt, positions[:, is_token], following, reference) != expected
    assert num_other >= 3


def test_vllm_drops_no_rows_where_it_numbers_tokens_itself(cases: dict[str, Case], reference: Reference) -> None:
    """Families of one axis: the server publishes that it takes copies alone, and refuses a mask by name."""
    flat = replace(reference.card, family="llava")
    assert [takes_dropped_rows(engine, flat) for engine in ("transformers", "vllm")] == [True, False]
    dropped, whole = (
        checked(cases["video"], masks(cases["video"], 1, drops=drops, copies=True), reference)
        for drops in (True, False)
    )
    for prompt, card in ((whole, flat), (whole, reference.card), (dropped, reference.card)):
        check_kept(prompt, card)
    with pytest.raises(InvalidInput, match="numbers the tokens of llava models one by one") as refused:
        check_kept(dropped, flat)
    assert refused.value.check == "kept-engine"


def test_a_lost_mask_is_refused(cases: dict[str, Case], server: TritonServer) -> None:
    made = request(cases["video"], masks(cases["video"], 1, drops=True, copies=False))
    for name in ("vision_rows_kept", "vision_rows_copied"):
        del made[name]
    with pytest.raises(InferenceServerException, match=r"INVALID_ARG.*rows, the grids ask for"):
        stream(server.grpc_url, made)


@pytest.mark.parametrize("drops", [False, True])
def test_copied_rows_are_filled(cases: dict[str, Case], server: TritonServer, *, drops: bool) -> None:
    """The same answer as with the rows sent in full, each copy taken from the frame before."""
    case = cases["video"]
    chosen = masks(case, 3, drops=drops, copies=True)
    assert chosen.copied[1:].any()
    assert drops or (chosen.copied[1] & chosen.copied[2]).any()  # a copy of a copy
    full = request(case, RowMasks(chosen.kept, np.zeros_like(chosen.copied)))
    kept, frames = chosen.kept, chosen.kept.shape
    main, levels = case.main.reshape(*frames, -1).copy(), case.deepstack.reshape(3, *frames, -1).copy()
    for t in range(1, frames[0]):
        main[t][chosen.copied[t]] = main[t - 1][chosen.copied[t]]
        levels[:, t][:, chosen.copied[t]] = levels[:, t - 1][:, chosen.copied[t]]
    full |= {"vision_embeddings_fp32": main[kept], "deepstack_embeddings_fp32": levels[:, kept]}
    expected = stream(server.grpc_url, full)[0]
    assert stream(server.grpc_url, request(case, chosen))[0] == expected
    assert expected != stream(server.grpc_url, tensors(case, sampling={"max_tokens": SHORT}))[0] or not drops


def test_masks_are_kept_with_their_rows(cases: dict[str, Case], server: TritonServer) -> None:
    """A key stands for rows and masks; the question by key, as ids and as text, has the same answer."""
    case = cases["video"]
    chosen = masks(case, 4, drops=True, copies=True)
    made = request(case, chosen)
    first = unary(server.grpc_url, made)
    keys, expected = first.as_numpy("vision_keys"), first.as_numpy("token_ids").tolist()
    asked = {name: made[name] for name in ("input_ids", "sampling_parameters")} | {"vision_keys": keys}
    assert unary(server.grpc_url, asked).as_numpy("token_ids").tolist() == expected
    frames = "".join(f"<{t}.5 seconds><|vision_start|><|video_pad|><|vision_end|>" for t in range(3))
    del asked["input_ids"]
    asked["text_input"] = f"Watch {frames} and say."
    assert unary(server.grpc_url, asked).as_numpy("token_ids").tolist() == expected
    other = request(case, RowMasks(chosen.kept, np.zeros_like(chosen.copied)))
    assert unary(server.grpc_url, other).as_numpy("vision_keys").tolist() != keys.tolist()
    del made["input_ids"]
    made["text_input"] = asked["text_input"]
    assert unary(server.grpc_url, made).as_numpy("token_ids").tolist() == expected
    assert MAX_NEW_TOKENS > SHORT
