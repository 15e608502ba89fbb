"""The codecs by name: which tensor carries each, and how rows go in and come out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs import channels, ecq, int4, int8, klt
from contract.codecs.numbers import CodecNumbers
from contract.errors import InvalidInput, NotFound, shown

Arrays = tuple[NDArray[Any], NDArray[Any]]
SCALES, STREAM = "vision_scales", "vision_stream"


WITHOUT_SCALES = ("klt",)


@dataclass(frozen=True)
class Codec:
    """A codec that needs numbers.

    Attributes:
        form: the tensor that holds the coded rows; vision_scales, float16 (1+L, n), goes with it. klt has no scales:
            in their place stands an empty array (0, n), which does not travel.
        encode: takes main (n, H), deepstack (L, n, H) and the numbers; returns the arrays of `form` and vision_scales.
        decode: takes those two arrays and the numbers; returns main and deepstack, float32; raises InvalidInput.
    """

    form: str
    encode: Callable[[NDArray[Any], NDArray[Any], CodecNumbers], Arrays]
    decode: Callable[[NDArray[Any], NDArray[Any], CodecNumbers], Arrays]


CODECS = {
    "int8c": Codec("vision_embeddings_q", channels.encode_int8, channels.decode_int8),
    "int4": Codec("vision_embeddings_q4", int4.encode, int4.decode),
    "ecq": Codec(STREAM, ecq.encode, ecq.decode),
    "klt": Codec(STREAM, klt.encode, klt.decode),
}


def check_name(sent: str, form: str, numbers: CodecNumbers | None) -> str:
    """The codec of a request as this server publishes it: its name and the hash of its numbers.

    Args:
        sent: what the client wrote into vision_codec.
        form: the name of the tensor that came with it.
        numbers: those of this server; None where it has none.

    Raises:
        InvalidInput: the server does not know the codec or has other numbers for it, or it goes with another tensor.
    """
    known = {} if numbers is None else numbers.names
    name = sent.partition(":")[0]
    if sent not in known.values():
        allowed = ", ".join(known.values()) or "none, because its checkpoint has no codec.npz"
        raise InvalidInput(
            f"vision_codec is {shown(sent)}, this server knows {allowed}: send one of them, int8 or fp16", check="codec"
        )
    if CODECS[name].form != form:
        raise InvalidInput(
            f"vision_codec is {shown(sent)}, which goes with {CODECS[name].form} and not with {form}",
            check="codec-form",
        )
    return sent


def decode(arrays: Arrays, codec: str, numbers: CodecNumbers | None) -> Arrays:
    """Main (n, H) and deepstack (L, n, H) of an item as it travelled: floats as they are, without a copy; everything
    else as float32.

    Args:
        arrays: main and deepstack, or a codec's values and scales (1+L, n).
        codec: what check_name returned; empty for floats and int8.

    Raises:
        InvalidInput: the arrays are damaged.
        NotFound: the item comes from a shared store, and its sender coded it with numbers that this server lacks.
    """
    if codec:
        if numbers is None or codec not in numbers.names.values():
            raise NotFound(
                f"vision_keys names an item of codec {codec}, whose numbers this server does not have: send its tensors",
                check="key-unknown",
            )
        return CODECS[codec.partition(":")[0]].decode(*arrays, numbers)
    return int8.dequantise(*arrays) if arrays[0].dtype == np.int8 else arrays
