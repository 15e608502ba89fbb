"""What a server of each layout reads of a request: its parser with a store that holds items, and good requests of it.

The parser is the product's own, in this process: a lie about rows, keys, masks and codecs costs a millisecond here, and
a whole server takes ten.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from contract.card import ModelCard
from contract.codecs.learn import learn
from contract.grids import item_rows, runs
from contract.items import ItemTensors
from contract.limits import Limits
from contract.row_counts import ROW_COUNTS
from contract.sampling import Sampling
from edge_runtime.encoded_item import EncodedItem, Precision
from edge_runtime.request import Request
from serving.requests.request import RequestParser
from serving.requests.store import ReuseStore
from tests.serving.reference import FINGERPRINT, IMAGE, VIDEO, make_tokenizer, transform

WIDTH = 16
Grid = tuple[bool, int, int, int]
CARD = ModelCard(
    "qwen3_vl", WIDTH, 2, 272, 4096, IMAGE, VIDEO, 259, 260, patch_size=16, merge_size=2, temporal_patch_size=2,
    encoder_fingerprint=FINGERPRINT,
)  # fmt: skip
TILES = replace(CARD, family="internvl", num_deepstack_levels=0, merge_size=1, video_token_id=None)
CARDS = {  # by the kind of layout
    "grids": CARD,
    "grids and seconds": replace(CARD, family="qwen2_5_vl", num_deepstack_levels=0, tokens_per_second=2.0),
    "a hybrid": replace(CARD, family="qwen3_5", num_deepstack_levels=0),
    "rows": TILES,
    "rows of pictures and videos": replace(TILES, family="llava_onevision", video_token_id=VIDEO),
}
ITEMS: dict[str, list[list[Grid]]] = {  # of a request each: is_video and grid
    "grids": [[], [(False, 1, 4, 6)], [(True, 3, 4, 4)], [(False, 1, 4, 4), (True, 2, 4, 6), (False, 1, 2, 8)]],
    "rows": [[], [(False, 1, 1, 9)], [(False, 3, 1, 5)], [(False, 1, 1, 7), (False, 2, 1, 4), (False, 1, 1, 1)]],
}
PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32", "int8", "int8c", "int4", "ecq", "klt")


@dataclass(frozen=True)
class Layout:
    """A parser, and good requests as the tensors that Triton hands over."""

    parser: RequestParser
    card: ModelCard
    good: list[dict[str, Any]]


def layout(name: str) -> Layout:
    """That of a name in CARDS."""
    card, random = CARDS[name], np.random.default_rng(3)
    levels = card.num_deepstack_levels
    rows = random.standard_normal((1 + levels, 200, WIDTH))
    numbers = replace(learn(rows), transform=transform(rows[:, 0].size))

    def item(is_video: bool, t: int, h: int, w: int) -> EncodedItem:
        count = item_rows((t, h, w), card)
        main, deepstack = (
            random.standard_normal((*shape, count, WIDTH)).astype(np.float32) for shape in ((), (levels,))
        )
        seconds = 0.5 if is_video and card.tokens_per_second else None
        return EncodedItem(is_video, (t, h, w), main, deepstack, numbers=numbers, seconds=seconds)

    store, good = ReuseStore(1 << 22), list[dict[str, Any]]()
    for grids in ITEMS["rows" if card.merge_size == 1 else "grids"]:
        if name == "rows of pictures and videos" and grids:
            grids = [*grids, (True, 1, 1, 6)]
        items = [item(*grid) for grid in grids]
        ids, text = [72, 105], "Hi"
        for one in items:
            number, length = runs(one.grid_thw, card)
            for _ in range(number):
                ids += [*[VIDEO if one.is_video else IMAGE] * length, 46]
                text += "<|video_pad|>." if one.is_video else "<|image_pad|>."
        request = Request(np.array(ids, np.int64), tuple(items), FINGERPRINT)
        for precision in PRECISIONS if items else ("fp16",):
            tensors = request.tensors(Sampling(max_tokens=4), precision)
            good.append(tensors)
            is_one_run = all(runs(one.grid_thw, card)[0] == 1 for one in items)
            if items and card.merge_size == 1 and (is_one_run or "vision_stream" not in tensors):
                good.append(counted(tensors))
            worded = {key: value for key, value in tensors.items() if key != "input_ids"}
            good.append(worded | {"text_input": np.array([text.encode()], object)})
            if items:
                kept = [_kept(one, precision) for one in items]
                keys = store.keep(kept[:1])
                good.append(request.tensors(Sampling(max_tokens=4), precision, held=keys))
                if [one.is_video for one in items] == sorted(one.is_video for one in items):  # as the contract has it
                    good.append(worded | {"sampling_parameters": np.array([b'{"max_tokens": 0}'], object)})
    return Layout(RequestParser(card, Limits(max_items=8), make_tokenizer(), store, numbers), card, good)


def counted(tensors: dict[str, Any]) -> dict[str, Any]:
    """The same with numbers of rows in the place of grids, where every item is one run."""
    made = dict(tensors)
    for grids, counts in ROW_COUNTS.items():
        if grids in made:
            made[counts] = np.concatenate([np.full(t, h * w) for t, h, w in made.pop(grids)])
    return made


def _kept(item: EncodedItem, precision: Precision) -> ItemTensors:
    codec = item.codec(precision)
    return ItemTensors(FINGERPRINT, item.is_video, item.grid_thw, item.wire(precision), codec, None, item.seconds)
