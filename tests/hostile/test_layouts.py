"""Lies about rows, grids, keys, masks and codecs, to a parser of each layout: a typed error, or a prompt that fits itself."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from contract.errors import EdgeVlmError
from tests.hostile.layouts import CARDS, Layout, layout

NUM_CASES = 400
WHOLE = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([0, -1, 1 << 15, (1 << 15) + 1, 1 << 31, 1 << 32, 1 << 60, 1 << 62, (1 << 63) - 1, -(1 << 63)]),
)
COUNTS = ("image_rows", "video_rows", "vision_stream_bytes", "vision_token_positions", "attention_mask", "input_ids")
GRIDS = ("image_grid_thw", "video_grid_thw")
MASKS = ("vision_rows_kept", "vision_rows_copied")


@st.composite
def lied(draw: st.DrawFn, good: list[dict[str, Any]]) -> dict[str, Any]:
    """A good request with one to three of its tensors changed, added, dropped or taken from another request."""
    made = dict(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(["count", "grid", "mask", "drop", "other", "cut", "key", "value"]))
        if how == "count":
            name = draw(st.sampled_from(COUNTS))
            made[name] = np.array(draw(st.lists(WHOLE, min_size=1, max_size=9)), np.int64)
        elif how == "grid":
            grids = draw(st.lists(st.tuples(WHOLE, WHOLE, WHOLE), min_size=1, max_size=9))
            made[draw(st.sampled_from(GRIDS))] = np.array(grids, np.int64)
        elif how == "mask":
            size = sum(np.atleast_2d(made[name]).prod(axis=-1).sum() for name in GRIDS if name in made) // draw(
                st.sampled_from([1, 4])
            )
            size = min(max(int(size), 1), 500)
            mask = np.frombuffer(draw(st.binary(min_size=1, max_size=40)), np.uint8)[np.zeros(size, np.intp)] > 60
            if draw(st.booleans()):
                mask = np.random.default_rng(draw(st.integers(0, 99))).random(size) > 0.3
            made[draw(st.sampled_from(MASKS))] = mask
        elif how == "other":
            other = draw(st.sampled_from(good))
            made |= {name: other[name] for name in draw(st.lists(st.sampled_from(sorted(other)), max_size=3))}
        elif how == "key":
            keys = [key for one in good for key in one.get("vision_keys", ())]
            found = draw(st.lists(st.sampled_from([b"", b"no key", b"\xff", *keys]), min_size=1, max_size=9))
            made["vision_keys"] = np.array(found, object)
        elif made:
            _change(draw, made, how)
    return made


def _change(draw: st.DrawFn, made: dict[str, Any], how: str) -> None:
    """Drop one tensor, cut or repeat its values, take its rank away, or change one value."""
    name = draw(st.sampled_from(sorted(made)))
    value = made[name]
    if how == "drop":
        del made[name]
    elif how == "cut" and value.ndim and value.shape[-1]:
        shapes = [value[:1], value[:-1], value[..., :-1], value.ravel(), value[None], np.concatenate([value, value])]
        made[name] = draw(st.sampled_from([*shapes, value[..., 0]]))
    elif value.dtype != object and value.size:
        made[name] = value.copy()
        at = draw(st.integers(0, value.size - 1))
        whole = draw(WHOLE)
        if value.dtype.kind == "f":
            made[name].flat[at] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 0, -1, 6e4, 1e-7]))
        elif value.dtype.kind == "b":
            made[name].flat[at] = not value.flat[at]
        else:
            made[name].flat[at] = whole if value.dtype == np.int64 else whole % 100


@pytest.fixture(scope="module", params=CARDS)
def served(request: pytest.FixtureRequest) -> Layout:
    return layout(request.param)


def test_good_requests_are_read(served: Layout) -> None:
    for tensors in served.good:
        served.parser.parse(tensors, {})


def test_a_lie_is_a_typed_error_or_a_prompt_that_fits(served: Layout) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=NUM_CASES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(tensors=lied(served.good))
    def ask(tensors: dict[str, Any]) -> None:
        try:
            prompt = served.parser.parse(tensors, {}).prompt
        except EdgeVlmError as error:
            assert error.code != "INTERNAL"  # noqa: PT017  many are refused, some are not
            assert len(str(error)) < 1500  # noqa: PT017
            seen["refused"] += 1
            return
        seen["read"] += 1
        if not prompt.input_ids.size:  # it only keeps items
            return
        num_pads = np.isin(prompt.input_ids, served.card.pad_token_ids).sum()
        assert num_pads == len(prompt.main) == sum(item.rows.stop - item.rows.start for item in prompt.items)
        assert prompt.deepstack.shape == (served.card.num_deepstack_levels, *prompt.main.shape)
        assert np.isfinite(prompt.main).all()
        positions, _ = prompt.positions(served.card)
        assert positions.shape[1] == prompt.input_ids.size
        assert (positions >= 0).all()
        assert len(prompt.keys) == len(prompt.items)

    ask()
    assert seen["refused"] > NUM_CASES / 4
    assert seen["read"] > 5
