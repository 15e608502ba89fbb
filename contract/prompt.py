"""Checks a prompt as it crosses the wire: token ids, grids and embedding rows must belong together.

All checks stand in front of every engine: a wrong width kills a whole vLLM engine, and one NaN poisons the cache
blocks of other requests. The server allocates nothing before it has checked the sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract import families
from contract.card import ModelCard
from contract.codecs.codec import decode
from contract.codecs.numbers import CodecNumbers
from contract.embeddings import SentRows, check_embeddings
from contract.errors import FingerprintMismatch, InvalidInput
from contract.grids import check_items, item_rows, num_rows
from contract.items import ItemRows, ItemTensors, joined, prompt_items
from contract.limits import Limits
from contract.rows import Layout, MaskReader, RowMasks, lay_out
from contract.seconds import check_last_position, check_seconds
from contract.token_ids import check_ids, check_mask, check_pads, check_positions


@dataclass(frozen=True)
class Prompt:
    """A prompt that passed every check.

    Attributes:
        input_ids: int64 (S,), one pad token per embedding row; empty where the request only asks the server to keep
            items.
        main: float16 or float32 (N, H), rows in prompt order, pictures and videos mixed as the prompt has them.
        deepstack: the same type, (L, N, H).
        image_grid_thw, video_grid_thw: int64 (k, 3) in patches.
        items: the pictures and videos in prompt order, with their places among the rows.
        contents: the items' tensors as they travelled, in prompt order.
        layout: where the prompt has masks, the whole prompt; None where every row has its pad and its bytes.
    """

    input_ids: NDArray[np.int64]
    main: NDArray[np.floating[Any]]
    deepstack: NDArray[np.floating[Any]]
    image_grid_thw: NDArray[np.int64]
    video_grid_thw: NDArray[np.int64]
    items: tuple[ItemRows, ...] = ()
    contents: tuple[ItemTensors, ...] = ()
    layout: Layout | None = None

    def positions(self, card: ModelCard) -> tuple[NDArray[np.int64], int]:
        """Positions int64 (axes, S) of the tokens, and the position of the next token minus S. Tokens stand where they
        stand in the whole prompt, so dropped rows leave gaps."""
        family = families.find(card.family)
        if self.layout is None:
            return family.positions(self, card)
        positions, delta = family.positions(replace(self, input_ids=self.layout.whole_ids), card)
        dropped = len(self.layout.whole_ids) - len(self.input_ids)
        return positions[:, self.layout.is_kept], delta + dropped

    @property
    def seconds(self) -> tuple[float | None, ...]:
        """For each video in prompt order the seconds between temporal patches; None where the family counts none."""
        return tuple(content.seconds for content in self.contents if content.is_video)

    @property
    def keys(self) -> tuple[str, ...]:
        """Name of each item by its content, in prompt order. The first call hashes, 0.6 ms a MiB: use a thread."""
        return tuple(content.key for content in self.contents)


def check_encoder(got: str | None, card: ModelCard) -> None:
    """Check the name that a client gave its encoder; None where it gave none.

    Raises:
        FingerprintMismatch: the embeddings come from another encoder.
    """
    if got is not None and got != card.encoder_fingerprint:
        raise FingerprintMismatch(got, card.encoder_fingerprint)


def _check_fingerprint(got: str | None, has_embeddings: bool, card: ModelCard) -> None:
    if has_embeddings and got is None:
        raise InvalidInput(
            "encoder_fingerprint is missing: send the one of the bundle's manifest with the embeddings",
            check="fingerprint",
        )
    check_encoder(got, card)


def _contents(
    items: Sequence[ItemRows],
    masks: Sequence[RowMasks | None],
    held: Sequence[ItemTensors | None],
    sent: SentRows,
    seconds: Sequence[float | None],
    card: ModelCard,
) -> tuple[ItemTensors, ...]:
    """Each item's tensors: held ones as they are, the others from `sent`; `seconds` has a value for each sent video."""
    found, start, place, times = list[ItemTensors](), 0, 0, iter(seconds)
    for item, mask, known in zip(items, masks, held, strict=True):
        if known is None:
            count = item.rows.stop - item.rows.start if mask is None else int(mask.is_sent.sum())
            arrays = sent.item(place, slice(start, start + count))
            time = next(times) if item.is_video else None
            known = ItemTensors(card.encoder_fingerprint, item.is_video, item.grid_thw, arrays, sent.codec, mask, time)
            start, place = start + count, place + 1
        found.append(known)
    return tuple(found)


def _check_decoded(contents: Sequence[ItemTensors], card: ModelCard, limits: Limits) -> None:
    """Bound the bytes of all items as floats before it decodes one: a small stream can be a large picture, and a frame
    with its copies a long video."""
    row_values = (1 + card.num_deepstack_levels) * card.hidden_size
    size = sum(content.num_decoded_bytes(row_values) for content in contents)
    if size > limits.max_embedding_bytes:
        raise InvalidInput(
            f"the embeddings decode to {size} bytes, {limits.max_embedding_bytes} are allowed", check="decoded-bytes"
        )


def check_items_alone(
    card: ModelCard,
    limits: Limits,
    *,
    embeddings: dict[str, NDArray[Any]],
    image_grid_thw: NDArray[np.int64] | None = None,
    video_grid_thw: NDArray[np.int64] | None = None,
    video_second_per_grid: NDArray[np.floating[Any]] | None = None,
    encoder_fingerprint: str | None = None,
    held: Sequence[ItemTensors | None] = (),
    numbers: CodecNumbers | None = None,
) -> Prompt:
    """A prompt without tokens whose items the server shall keep, pictures before videos.

    Arguments and errors are those of check_prompt.
    """
    images, videos = check_items(image_grid_thw, video_grid_thw, card, limits)
    seconds = check_seconds(video_second_per_grid, len(videos), card)
    sent = [(False, *grid) for grid in images.tolist()] + [(True, *grid) for grid in videos.tolist()]
    _check_fingerprint(encoder_fingerprint, bool(sent), card)
    rows = num_rows(images, card) + num_rows(videos, card)
    reader = MaskReader(embeddings, rows, card)
    found = check_embeddings(embeddings, reader.num_sent, len(sent), card, limits, numbers)
    waiting, items, masks, start = iter(sent), list[ItemRows](), list[RowMasks | None](), 0
    for known in held or [None] * len(sent):
        is_video, t, h, w = next(waiting) if known is None else (known.is_video, *known.grid_thw)
        masks.append(reader.next(is_video, (t, h, w)) if known is None else known.masks)
        end = start + (item_rows((t, h, w), card) if masks[-1] is None else masks[-1].num_kept)
        items.append(ItemRows(is_video, (t, h, w), slice(start, end)))
        start = end
    contents = _contents(items, masks, held or [None] * len(sent), found, seconds, card)
    _check_decoded(contents, card, limits)
    for content in contents:
        if content.codec:
            content.floats(numbers)  # the server keeps only what it can decode
    none = np.zeros((card.num_deepstack_levels, 0, card.hidden_size), np.float32)
    return Prompt(
        np.zeros(0, np.int64),
        np.zeros((0, card.hidden_size), np.float32),
        none,
        images,
        videos,
        tuple(items),
        contents,
    )


def check_prompt(
    card: ModelCard,
    limits: Limits,
    *,
    input_ids: NDArray[np.int64],
    embeddings: dict[str, NDArray[Any]] | None = None,
    image_grid_thw: NDArray[np.int64] | None = None,
    video_grid_thw: NDArray[np.int64] | None = None,
    video_second_per_grid: NDArray[np.floating[Any]] | None = None,
    encoder_fingerprint: str | None = None,
    attention_mask: NDArray[np.int64] | None = None,
    vision_token_positions: NDArray[np.int64] | None = None,
    held: Sequence[ItemTensors | None] = (),
    numbers: CodecNumbers | None = None,
    is_whole: bool = False,
) -> Prompt:
    """Check the tensors of one request against the model and each other.

    Args:
        input_ids: int64 (S,), a pad for each embedding row.
        embeddings: rows of the items that the client sent, in prompt order; contract.embeddings has the tensors' names.
        image_grid_thw, video_grid_thw: int64 (k, 3) in patches, of all items in prompt order.
        video_second_per_grid: a value for each video that the client sent; see contract.seconds.check_seconds.
        encoder_fingerprint: the name that the client gave its encoder.
        attention_mask: int64 (S,), all ones.
        vision_token_positions: int64 (pads,), the places of the pads in input_ids.
        held: for each item in prompt order what the server holds of it, None where the client sent it; empty where the
            client sent all.
        numbers: those of the learned codecs that this server knows.
        is_whole: input_ids has a pad for every row of the grids, also for dropped rows.

    Raises:
        InvalidInput: a tensor breaks the contract; the message names it, its value and the allowed one.
        FingerprintMismatch: the embeddings come from another encoder.
        NotFound: a held item has a codec whose numbers this server lacks.
    """
    check_ids(input_ids, card, limits)
    images, videos = check_items(image_grid_thw, video_grid_thw, card, limits)
    known: Sequence[ItemTensors | None] = held or [None] * (len(images) + len(videos))
    _check_fingerprint(encoder_fingerprint, None in known, card)
    rows = num_rows(images, card) + num_rows(videos, card)
    rows -= sum(item_rows(item.grid_thw, card) for item in known if item is not None)
    reader = MaskReader(embeddings or {}, rows, card)
    sent = check_embeddings(embeddings or {}, reader.num_sent, known.count(None), card, limits, numbers)
    layout: Layout | None = None
    if reader.is_given or any(item is not None and item.masks is not None for item in known):
        held_masks = [(item is not None, item.masks if item is not None else None) for item in known]
        layout = lay_out(input_ids, images, videos, held_masks, reader, card, limits, is_whole=is_whole)
        input_ids = layout.input_ids
    whole_ids = input_ids if layout is None else layout.whole_ids
    check_pads(whole_ids, "image_grid_thw", card.image_token_id, images, card)
    if card.video_token_id is not None:
        check_pads(whole_ids, "video_grid_thw", card.video_token_id, videos, card)
    check_mask(attention_mask, input_ids)
    check_positions(vision_token_positions, input_ids, card)
    items = prompt_items(whole_ids, images, videos, card)
    masks: Sequence[RowMasks | None] = layout.masks if layout is not None else [None] * len(items)
    num_sent = len(videos) - sum(item is not None and item.is_video for item in known)
    seconds = check_seconds(video_second_per_grid, num_sent, card)
    contents = _contents(items, masks, known, sent, seconds, card)
    _check_decoded(contents, card, limits)
    if layout is not None:
        items = _placed(items, contents)
    if held or sent.codec or layout is not None:
        main, deepstack = joined([content.floats(numbers) for content in contents])
    else:
        main, deepstack = decode(sent.arrays, "", None)
    prompt = Prompt(input_ids, main, deepstack, images, videos, tuple(items), contents, layout)
    if any(prompt.seconds):
        check_last_position(prompt.positions(card)[0], card)
    return prompt


def _placed(items: Sequence[ItemRows], contents: Sequence[ItemTensors]) -> list[ItemRows]:
    """The items with their places among the kept rows."""
    placed, start = list[ItemRows](), 0
    for item, content in zip(items, contents, strict=True):
        end = start + content.num_rows
        placed.append(replace(item, rows=slice(start, end)))
        start = end
    return placed
