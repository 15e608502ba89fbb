"""What the device sends and what comes back, as arrays; the clients only differ in how these travel.

A picture or video whose key the server holds is named by that key; the tensors of the others come along.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from contract.codecs import codec, int8
from contract.codecs.numbers import CodecNumbers
from contract.errors import BundleError
from contract.items import ItemRows, item_key
from contract.sampling import Sampling

Precision = Literal["fp16", "fp32", "int8", "int8c", "int4", "ecq"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WIRE_NAMES = {  # two tensors each, and the axis their rows stand on
    "fp16": (("vision_embeddings", 0), ("deepstack_embeddings", 1)),
    "fp32": (("vision_embeddings_fp32", 0), ("deepstack_embeddings_fp32", 1)),
    "int8": (("vision_embeddings_q", 1), ("vision_scales", 1)),
    "int8c": (("vision_embeddings_q", 1), ("vision_scales", 1)),
    "int4": (("vision_embeddings_q4", 1), ("vision_scales", 1)),
    "ecq": (("vision_stream", 0), ("vision_scales", 1)),
}


@dataclass(eq=False)
class EncodedItem:
    """A picture or video as the tower sees it.

    Attributes:
        grid_thw: frames (pairs, for a video), height, width in patches.
        main, deepstack: float32 (n, H) and (L, n, H).
        wire_keys: names of exactly these rows by precision and kind: what servers answered, or hashed here.
        numbers: of the bundle's learned codecs, None where it has none.
    """

    is_video: bool
    grid_thw: tuple[int, int, int]
    main: NDArray[np.float32]
    deepstack: NDArray[np.float32]
    wire_keys: dict[tuple[str, bool], str] = field(default_factory=dict, repr=False)
    numbers: CodecNumbers | None = field(default=None, repr=False)
    _wire: tuple[Precision, tuple[NDArray[Any], NDArray[Any]]] | None = field(default=None, init=False, repr=False)

    def wire(self, precision: Precision) -> tuple[NDArray[Any], NDArray[Any]]:
        """The rows as they travel: (n, H) and (L, n, H), or what a codec makes of them and the scales (1+L, n).

        Raises:
            BundleError: the precision is a learned codec, and the bundle has no numbers.
        """
        if self._wire is None or self._wire[0] != precision:  # hashed, then sent: converted once
            self._wire = precision, self._converted(precision)
        return self._wire[1]

    def _converted(self, precision: Precision) -> tuple[NDArray[Any], NDArray[Any]]:
        if precision == "int8":
            return int8.quantise(self.main, self.deepstack)
        if precision in codec.CODECS:
            if self.numbers is None:
                raise BundleError(f"{precision} needs codec numbers, which this bundle lacks: export it again")
            return codec.CODECS[precision].encode(self.main, self.deepstack, self.numbers)
        dtype = np.float16 if precision == "fp16" else np.float32
        return self.main.astype(dtype, copy=False), self.deepstack.astype(dtype, copy=False)

    def key(self, fingerprint: str, precision: Precision) -> str:
        """Name of the rows on a server; see contract.items."""
        found = self.wire_keys.get((precision, self.is_video))
        if found is None:
            where = ItemRows(self.is_video, self.grid_thw, slice(0, len(self.main)))
            arrays = self.wire(precision)
            found = item_key(fingerprint, where, *arrays, codec=self.codec(precision))
            self.wire_keys[precision, self.is_video] = found
        return found

    def codec(self, precision: Precision) -> str:
        """Name and hash of the codec as servers publish it; empty for floats and int8."""
        return self.numbers.names.get(precision, "") if self.numbers is not None else ""


@dataclass(frozen=True)
class Request:
    """A prompt with its pictures and videos.

    Attributes:
        input_ids: int64 (S,), one pad token per embedding row.
        items: in prompt order.
        num_encoded: pictures and videos the tower ran on; the others were kept from before.
    """

    input_ids: NDArray[np.int64]
    items: tuple[EncodedItem, ...]
    encoder_fingerprint: str
    num_encoded: int = 0

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
        """Names of the items on a server, in prompt order."""
        return [item.key(self.encoder_fingerprint, precision) for item in self.items]

    def tensors(
        self, sampling: Sampling, precision: Precision = "fp16", *, stream: bool = True, held: Collection[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """The tensors of wire contract v1 by name; BYTES as object arrays.

        Args:
            held: keys the server is believed to hold; items of other keys travel.
        """
        tensors: dict[str, NDArray[Any]] = {
            "input_ids": self.input_ids,
            "sampling_parameters": text_tensor(sampling_json(sampling)),
            "stream": np.array([stream]),
            "return_finish_reason": np.array([True]),
            "return_num_input_tokens": np.array([True]),
            "return_num_output_tokens": np.array([True]),
        }
        missing = self.missing(precision, held)
        if len(missing) < len(self.items):
            keys = ["" if item in missing else item.key(self.encoder_fingerprint, precision) for item in self.items]
            tensors["vision_keys"] = text_tensor(*keys)
        return tensors | self.vision_tensors(missing, precision)

    def missing(self, precision: Precision, held: Collection[str]) -> list[EncodedItem]:
        """The items whose keys are not held. Nothing is hashed where nothing can be held."""
        if not held:
            return list(self.items)
        return [item for item in self.items if item.key(self.encoder_fingerprint, precision) not in held]

    def vision_tensors(self, items: Sequence[EncodedItem], precision: Precision) -> dict[str, NDArray[Any]]:
        """Rows and grids of some items, and the fingerprint that goes with them."""
        if not self.items:
            return {}
        tensors: dict[str, NDArray[Any]] = {"encoder_fingerprint": text_tensor(self.encoder_fingerprint)}
        wires = [item.wire(precision) for item in items]
        if wires and (name := items[0].codec(precision)):
            tensors["vision_codec"] = text_tensor(name)
        if wires and precision == "ecq":
            tensors["vision_stream_bytes"] = np.array([stream.size for stream, _ in wires], np.int64)
        parts = zip(*wires, strict=True)
        for (name, axis), arrays in zip(WIRE_NAMES[precision], parts, strict=False):  # no items, no parts
            array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
            if array.shape[0]:  # no deepstack levels, no tensor
                tensors[name] = array
        for name, is_video in (("image_grid_thw", False), ("video_grid_thw", True)):
            if len(grid := _grids(items, is_video)):
                tensors[name] = grid
        return tensors


def learn_keys(items: Sequence[EncodedItem], keys: Sequence[str], precision: Precision) -> None:
    """Take the names a server answered for items it was sent or asked by, which saves hashing them here."""
    if len(keys) == len(items):
        for item, key in zip(items, keys, strict=True):
            if key:  # else the server did not keep it
                item.wire_keys[precision, item.is_video] = key


@dataclass(frozen=True)
class Delta:
    """A piece of an answer.

    Attributes:
        finish_reason: empty until the last piece.
        num_input_tokens: tokens of the prompt.
        logprobs: one object a token, where sampling asks for them: id, token, logprob, top.
        vision_keys: names of the request's items on the server, in prompt order; with the first piece.
        num_uploaded: pictures and videos whose tensors were sent for this answer; the server held the others.
        upload_bytes: tensor bytes sent for this answer so far; what lay in shared memory was not sent.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: str = ""
    num_input_tokens: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()
    vision_keys: tuple[str, ...] = ()
    num_uploaded: int = 0
    upload_bytes: int = 0


def sampling_json(sampling: Sampling) -> str:
    """The values that were set, as JSON."""
    return json.dumps({name: value for name, value in asdict(sampling).items() if value not in (None, ())})


def read_delta(outputs: Mapping[str, Sequence[Any]]) -> Delta:
    """A response's outputs, each a list of its values, as a Delta."""

    def texts(name: str) -> list[str]:
        return [value.decode() if isinstance(value, bytes) else value for value in outputs.get(name, ())]

    return Delta(
        "".join(texts("text_output")),
        tuple(outputs.get("token_ids", ())),
        "".join(texts("finish_reason")),
        int(next(iter(outputs.get("num_input_tokens", ())), 0)),
        tuple(map(json.loads, texts("logprobs"))),
        tuple(texts("vision_keys")),
    )


def _grids(items: Sequence[EncodedItem], is_video: bool) -> NDArray[np.int64]:
    return np.array([item.grid_thw for item in items if item.is_video == is_video], np.int64).reshape(-1, 3)


def text_tensor(*values: str) -> NDArray[np.object_]:
    """A BYTES tensor, (values,)."""
    return np.array([value.encode() for value in values], np.object_)
