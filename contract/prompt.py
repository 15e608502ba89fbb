"""A prompt as it crosses the wire, checked: token ids, grids and embedding rows that belong together.

All checks stand here, in front of every engine: a wrong width kills a whole vLLM engine, and one NaN poisons the cache
blocks of other requests. Nothing is allocated before the sizes are known to be sane.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import FingerprintMismatch, InvalidInput
from contract.limits import Limits

MAX_SIDE = 1 << 15  # patches; h * w * t then stays far inside int64


@dataclass(frozen=True)
class Prompt:
    """A prompt that passed every check.

    Attributes:
        input_ids: int64 (S,), one pad token per embedding row.
        main: float16 or float32 (N, H), rows in prompt order, pictures and videos mixed as the prompt has them.
        deepstack: the same type, (L, N, H).
        image_grid_thw, video_grid_thw: int64 (k, 3) in patches.
    """

    input_ids: NDArray[np.int64]
    main: NDArray[np.floating[Any]]
    deepstack: NDArray[np.floating[Any]]
    image_grid_thw: NDArray[np.int64]
    video_grid_thw: NDArray[np.int64]


def check_grids(name: str, grid: NDArray[np.int64] | None, card: ModelCard) -> NDArray[np.int64]:
    """A grid tensor (k, 3), or an empty one for None.

    Raises:
        InvalidInput: wrong shape, a side that is not positive, too large, or no multiple of the merge size.
    """
    if grid is None:
        return np.zeros((0, 3), np.int64)
    if grid.ndim != 2 or grid.shape[1] != 3:
        raise InvalidInput(f"{name} has shape {list(grid.shape)}, [items, 3] is expected")
    for item, (t, h, w) in enumerate(grid.tolist()):  # check_items has bounded their number
        if not all(1 <= side <= MAX_SIDE for side in (t, h, w)):
            raise InvalidInput(f"{name}[{item}] is {[t, h, w]}, sides from 1 to {MAX_SIDE} are allowed")
        if h % card.merge_size or w % card.merge_size:
            raise InvalidInput(
                f"{name}[{item}] is {[t, h, w]}, height and width must be multiples of {card.merge_size}"
            )
        if name == "image_grid_thw" and t != 1:
            raise InvalidInput(f"{name}[{item}] is {[t, h, w]}, a picture has t = 1; send videos as video_grid_thw")
    return grid


def check_items(
    image_grid_thw: NDArray[np.int64] | None, video_grid_thw: NDArray[np.int64] | None, card: ModelCard, limits: Limits
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both grid tensors, checked; their number first, because the rest looks at every item.

    Raises:
        InvalidInput: too many items, or a grid that check_grids refuses.
    """
    items = sum(len(grid) for grid in (image_grid_thw, video_grid_thw) if grid is not None and grid.ndim)
    if items > limits.max_items:
        raise InvalidInput(f"the request has {items} pictures and videos, {limits.max_items} are allowed")
    return check_grids("image_grid_thw", image_grid_thw, card), check_grids("video_grid_thw", video_grid_thw, card)


def num_rows(grid: NDArray[np.int64], card: ModelCard) -> int:
    """Embedding rows of the items: t * h * w / merge_size^2, summed."""
    return int(grid.prod(axis=1).sum()) // card.merge_size**2


def _check_ids(input_ids: NDArray[np.int64], card: ModelCard, limits: Limits) -> None:
    if input_ids.ndim != 1 or not input_ids.size:
        raise InvalidInput(f"input_ids has shape {list(input_ids.shape)}, [tokens] with at least one token is expected")
    allowed = min(limits.max_prompt_tokens, card.max_position_embeddings)
    if input_ids.size > allowed:
        raise InvalidInput(
            f"input_ids has {input_ids.size} tokens, {allowed} are allowed: send smaller pictures or less text"
        )
    bad = np.flatnonzero((input_ids < 0) | (input_ids >= card.vocab_size))
    if bad.size:
        raise InvalidInput(
            f"input_ids[{bad[0]}] is {input_ids[bad[0]]}, ids from 0 to {card.vocab_size - 1} are allowed"
        )


def _check_pads(input_ids: NDArray[np.int64], name: str, token: int, grid: NDArray[np.int64], card: ModelCard) -> None:
    """The pads of one kind stand in runs, one run a frame, as long as the frame's rows."""
    places = np.flatnonzero(input_ids == token)
    expected = num_rows(grid, card)
    if places.size != expected:
        raise InvalidInput(f"input_ids has {places.size} pad tokens {token}, {name} asks for {expected}")
    start = 0
    for item, (t, h, w) in enumerate(grid.tolist()):
        length = h * w // card.merge_size**2
        for frame in range(t):
            run = places[start : start + length]
            if run[-1] - run[0] != length - 1:
                raise InvalidInput(
                    f"input_ids: the {length} pad tokens of {name}[{item}], frame {frame}, do not stand side by side from {run[0]} on"
                )
            start += length


def _split(
    embeddings: NDArray[np.floating[Any]] | None,
    deepstack: NDArray[np.floating[Any]] | None,
    rows: int,
    card: ModelCard,
    limits: Limits,
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    width, levels = card.hidden_size, card.num_deepstack_levels
    if embeddings is None:
        if deepstack is not None:
            raise InvalidInput("deepstack_embeddings is given without vision_embeddings: send both")
        if rows:
            raise InvalidInput(f"vision_embeddings is missing, the grids ask for {rows} rows")
        return np.zeros((0, width), np.float16), np.zeros((levels, 0, width), np.float16)
    size = embeddings.nbytes + (deepstack.nbytes if deepstack is not None else 0)
    if size > limits.max_embedding_bytes:
        raise InvalidInput(f"the embeddings have {size} bytes, {limits.max_embedding_bytes} are allowed")
    if embeddings.ndim != 2:
        raise InvalidInput(f"vision_embeddings has shape {list(embeddings.shape)}, [rows, width] is expected")
    if embeddings.shape[0] != rows:
        raise InvalidInput(f"vision_embeddings has {embeddings.shape[0]} rows, the grids ask for {rows}")
    packed = (1 + levels) * width
    if deepstack is None and levels:
        if embeddings.shape[1] != packed:
            raise InvalidInput(
                f"vision_embeddings is {embeddings.shape[1]} wide and deepstack_embeddings is missing: send "
                f"deepstack_embeddings [{levels}, {rows}, {width}], or rows packed {packed} wide"
            )
        parts = embeddings.reshape(rows, 1 + levels, width)
        main, deepstack = parts[:, 0], parts[:, 1:].transpose(1, 0, 2)  # (N, H), (L, N, H)
    else:
        main = embeddings
        deepstack = np.zeros((0, rows, width), embeddings.dtype) if deepstack is None else deepstack
        if main.shape[1] != width:
            raise InvalidInput(f"vision_embeddings is {main.shape[1]} wide, {width} is expected")
        if deepstack.shape != (levels, rows, width):
            raise InvalidInput(
                f"deepstack_embeddings has shape {list(deepstack.shape)}, {[levels, rows, width]} is expected"
            )
        if deepstack.dtype != main.dtype:
            raise InvalidInput(
                f"deepstack_embeddings is {deepstack.dtype}, vision_embeddings is {main.dtype}: send one type"
            )
    for name, values in (("vision_embeddings", main), ("deepstack_embeddings", deepstack)):
        if not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0].tolist()
            raise InvalidInput(f"{name}{place} is {values[tuple(place)]}, only finite values are allowed")
    return main, deepstack


def check_prompt(
    card: ModelCard,
    limits: Limits,
    *,
    input_ids: NDArray[np.int64],
    vision_embeddings: NDArray[np.floating[Any]] | None = None,
    deepstack_embeddings: NDArray[np.floating[Any]] | None = None,
    image_grid_thw: NDArray[np.int64] | None = None,
    video_grid_thw: NDArray[np.int64] | None = None,
    encoder_fingerprint: str | None = None,
    attention_mask: NDArray[np.int64] | None = None,
    vision_token_positions: NDArray[np.int64] | None = None,
) -> Prompt:
    """Check the tensors of one request against the model and each other.

    Raises:
        InvalidInput: naming the tensor, its value and the allowed one.
        FingerprintMismatch: the embeddings come from another encoder.
    """
    _check_ids(input_ids, card, limits)
    image_grid_thw, video_grid_thw = check_items(image_grid_thw, video_grid_thw, card, limits)
    if len(image_grid_thw) + len(video_grid_thw) and encoder_fingerprint is None:
        raise InvalidInput("encoder_fingerprint is missing: send the one of the bundle's manifest with the embeddings")
    if encoder_fingerprint is not None and encoder_fingerprint != card.encoder_fingerprint:
        raise FingerprintMismatch(encoder_fingerprint, card.encoder_fingerprint)
    rows = num_rows(image_grid_thw, card) + num_rows(video_grid_thw, card)
    main, deepstack = _split(vision_embeddings, deepstack_embeddings, rows, card, limits)
    _check_pads(input_ids, "image_grid_thw", card.image_token_id, image_grid_thw, card)
    _check_pads(input_ids, "video_grid_thw", card.video_token_id, video_grid_thw, card)
    if attention_mask is not None and not (attention_mask.shape == input_ids.shape and (attention_mask == 1).all()):
        raise InvalidInput(
            f"attention_mask has shape {list(attention_mask.shape)}, all ones of shape {list(input_ids.shape)} are expected"
        )
    if vision_token_positions is not None:
        pads = np.flatnonzero(np.isin(input_ids, (card.image_token_id, card.video_token_id)))
        if not np.array_equal(vision_token_positions, pads):
            raise InvalidInput(
                f"vision_token_positions has {vision_token_positions.size} places that are not the {pads.size} pad places of input_ids"
            )
    return Prompt(input_ids, main, deepstack, image_grid_thw, video_grid_thw)
