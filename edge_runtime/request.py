"""What the device sends and what comes back, as arrays; the clients only differ in how these travel.

A request names a picture or video by its key where the server holds that key, and brings the tensors of the others.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.rows import COPIED, KEPT, RowMasks
from contract.sampling import Sampling
from contract.tasks import GENERATE, OUTPUTS
from edge_runtime.encoded_item import WIRE_NAMES, EncodedItem, Precision


@dataclass(frozen=True)
class Request:
    """A prompt with its pictures and videos.

    Attributes:
        input_ids: int64 (S,), one pad token per embedding row.
        items: its pictures and videos, in prompt order.
        encoder_fingerprint: names the tower that made the rows; a server with another one refuses them.
        num_encoded: how many of the items the tower has encoded for this request; a cache gave the rows of the others.
        ran: for each item that the tower has encoded, what ran it: "cpu", or an accelerator, its precision and the
            picture's size.
        task: one of contract.tasks.TASKS; a task without tokens is answered with one Delta.
    """

    input_ids: NDArray[np.int64]
    items: tuple[EncodedItem, ...]
    encoder_fingerprint: str
    num_encoded: int = 0
    task: str = GENERATE
    ran: tuple[str, ...] = ()

    @property
    def main(self) -> NDArray[np.float32]:
        """All rows, float32 (N, H)."""
        return np.concatenate([item.main for item in self.items] or [np.zeros((0, 0), np.float32)])

    @property
    def deepstack(self) -> NDArray[np.float32]:
        """All rows of the levels, float32 (L, N, H)."""
        return np.concatenate([item.deepstack for item in self.items] or [np.zeros((0, 0, 0), np.float32)], axis=1)

    @property
    def image_grid_thw(self) -> NDArray[np.int64]:
        """Grids of the pictures, int64 (k, 3) in patches."""
        return _grids(self.items, False)

    @property
    def video_grid_thw(self) -> NDArray[np.int64]:
        """Grids of the videos, int64 (k, 3) in patches."""
        return _grids(self.items, True)

    def keys(self, precision: Precision) -> list[str]:
        """The names of the items on a server, in prompt order."""
        return [item.key(self.encoder_fingerprint, precision) for item in self.items]

    def tensors(
        self, sampling: Sampling, precision: Precision = "fp16", *, stream: bool = True, held: Collection[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """The tensors of wire contract v1 by name; a BYTES tensor is an object array.

        Args:
            sampling: how the server samples.
            precision: how the rows travel.
            stream: whether the answer comes in pieces.
            held: the keys that the server probably holds; the tensors of all other items travel.
        """
        tensors: dict[str, NDArray[Any]] = {
            "input_ids": self.input_ids,
            "sampling_parameters": text_tensor(sampling_json(sampling)),
            "stream": np.array([stream]),
            "return_finish_reason": np.array([True]),
            "return_num_input_tokens": np.array([True]),
            "return_num_output_tokens": np.array([True]),
        }
        if self.task != GENERATE:
            tensors["task"] = text_tensor(self.task)
        missing = self.missing(precision, held)
        if len(missing) < len(self.items):
            keys = ["" if item in missing else item.key(self.encoder_fingerprint, precision) for item in self.items]
            tensors["vision_keys"] = text_tensor(*keys)
        return tensors | self.vision_tensors(missing, precision)

    def missing(self, precision: Precision, held: Collection[str]) -> list[EncodedItem]:
        """The items whose keys are not in `held`. Where `held` is empty this call returns all and hashes nothing."""
        if not held:
            return list(self.items)
        return [item for item in self.items if item.key(self.encoder_fingerprint, precision) not in held]

    def vision_tensors(self, items: Sequence[EncodedItem], precision: Precision) -> dict[str, NDArray[Any]]:
        """The tensors of some items by name: rows, grids, the encoder's fingerprint; {} for a request without items."""
        if not self.items:
            return {}
        tensors: dict[str, NDArray[Any]] = {"encoder_fingerprint": text_tensor(self.encoder_fingerprint)}
        wires = [item.wire(precision) for item in items]
        if wires and (name := items[0].codec(precision)):
            tensors["vision_codec"] = text_tensor(name)
        if wires and WIRE_NAMES[precision][0][0] == "vision_stream":
            tensors["vision_stream_bytes"] = np.array([stream.size for stream, _ in wires], np.int64)
        parts = zip(*wires, strict=True)
        for (name, axis), arrays in zip(WIRE_NAMES[precision], parts, strict=False):  # no items, no parts
            array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
            if array.shape[0]:  # no deepstack levels and no scales, no tensor
                tensors[name] = array
        for name, is_video in (("image_grid_thw", False), ("video_grid_thw", True)):
            if len(grid := _grids(items, is_video)):
                tensors[name] = grid
        if seconds := [item.seconds for item in items if item.seconds is not None]:
            tensors["video_second_per_grid"] = np.array(seconds, np.float32)
        return tensors | _masks(items, precision)

    @property
    def is_whole(self) -> bool:
        """Whether the prompt has a pad for every row of its items."""
        return not any(item.rule.drop_share and item.masks("fp16") is not None for item in self.items)

    def whole(self) -> "Request":
        """The same request with the rule that all rows travel; its prompt must have all pads (is_whole)."""
        return replace(self, items=tuple(item.whole() for item in self.items))


def learn_keys(items: Sequence[EncodedItem], keys: Sequence[str], precision: Precision) -> None:
    """Note the names of items in a server's answer, so that this device need not hash them.

    Args:
        items: the items of the request.
        keys: their names in the same order; "" where the server did not keep an item. The call does nothing where there
            are more or fewer names than items.
        precision: how the rows travelled.
    """
    if len(keys) == len(items):
        for item, key in zip(items, keys, strict=True):
            if key:  # else the server did not keep it
                item.wire_keys[item.form(precision)] = key


@dataclass(frozen=True)
class Delta:
    """A piece of an answer.

    Attributes:
        text: the text of this piece.
        token_ids: the tokens of this piece.
        finish_reason: "" until the last piece.
        num_input_tokens: how many tokens the prompt has.
        logprobs: one object for each token, where sampling asks for them: id, token, logprob, top.
        vision_keys: the names of the request's items on the server, in prompt order; with the first piece.
        num_uploaded: how many pictures and videos the client sent as tensors for this answer; the server held the
            others.
        upload_bytes: how many tensor bytes the client has sent for this answer so far; bytes in shared memory do not
            count.
        precision: the precision of this request's rows, also where none travelled.
        fallback: why that is not the precision that the client asked for, in a line; "" where it is.
        pooled: what a task without tokens gives: the H values of an embedding, or the one of a score.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: str = ""
    num_input_tokens: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()
    vision_keys: tuple[str, ...] = ()
    num_uploaded: int = 0
    upload_bytes: int = 0
    precision: str = ""
    fallback: str = ""
    pooled: tuple[float, ...] = ()


def sampling_json(sampling: Sampling) -> str:
    """The sampling values that are set, as a JSON object."""
    return json.dumps({name: value for name, value in asdict(sampling).items() if value not in (None, ())})


def read_delta(outputs: Mapping[str, Sequence[Any]]) -> Delta:
    """The Delta of a response's outputs; each output is a list of its values."""

    def texts(name: str) -> list[str]:
        return [value.decode() if isinstance(value, bytes) else value for value in outputs.get(name, ())]

    return Delta(
        "".join(texts("text_output")),
        tuple(outputs.get("token_ids", ())),
        "".join(texts("finish_reason")),
        int(next(iter(outputs.get("num_input_tokens", ())), 0)),
        tuple(map(json.loads, texts("logprobs"))),
        tuple(texts("vision_keys")),
        pooled=tuple(value for name in OUTPUTS.values() for value in outputs.get(name, ())),
    )


def _masks(items: Sequence[EncodedItem], precision: Precision) -> dict[str, NDArray[Any]]:
    """The tensors vision_rows_kept and vision_rows_copied of some items, each one only where it excludes a row."""
    masks = [item.masks(precision) or RowMasks.whole(len(item.main)) for item in items]
    found: dict[str, NDArray[Any]] = {}
    if not all(mask.kept.all() for mask in masks):
        found[KEPT] = np.concatenate([mask.kept.ravel() for mask in masks])
    if any(mask.copied.any() for mask in masks):
        found[COPIED] = np.concatenate([mask.copied.ravel() for mask in masks])
    return found


def _grids(items: Sequence[EncodedItem], is_video: bool) -> NDArray[np.int64]:
    return np.array([item.grid_thw for item in items if item.is_video == is_video], np.int64).reshape(-1, 3)


def text_tensor(*values: str) -> NDArray[np.object_]:
    """A BYTES tensor of texts in UTF-8, an object array (number of values,)."""
    return np.array([value.encode() for value in values], np.object_)
