"""The precision of the rows: `auto` chooses by the uplink and by what the user accepts; another choice of the user's
falls back where the server cannot take it."""

from collections import deque
from collections.abc import Collection, Mapping
from statistics import median
from typing import Literal, get_args

from contract.codecs.codec import CODECS
from contract.errors import InvalidInput
from edge_runtime.encoded_item import PRECISIONS, Precision
from edge_runtime.request import Request

AUTO: Literal["auto"] = "auto"
Quality = Literal["exact", "close", "small", "least"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
TAKES: dict[Quality, tuple[Precision, ...]] = {  # the most exact first
    "exact": ("fp16",),
    "close": ("fp16", "int8c", "int8"),
    "small": ("fp16", "int8c", "int8", "int4", "ecq"),
    "least": ("fp16", "int8c", "int8", "int4", "ecq", "klt"),
}
BITS = {
    "fp32": 32.0,
    "fp16": 16.0,
    "int8": 8.0,
    "int8c": 8.0,
    "int4": 4.0,
    "ecq": 3.2,
    "klt": 1.0,
}  # about, bits a value
DATATYPES: dict[str, Precision] = {"FP16": "fp16", "FP32": "fp32", "INT8": "int8"}  # for a server without codecs
FALLBACKS: tuple[Precision, ...] = ("int8", "fp16")  # for what a server does not take, in this order
LEAST_BYTES = 1 << 16  # a smaller upload fits into buffers: its time says nothing
NUM_UPLOADS = 5


class Uplink:
    """The speed of the last uploads, in bytes per second up to the server's first answer: nobody on this machine sees
    when the last byte leaves. So it is a lower bound, and a slow server makes `choose` take a smaller precision, never
    a larger one. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._speeds: deque[float] = deque(maxlen=NUM_UPLOADS)

    def add(self, num_bytes: int, seconds: float) -> None:
        """Note an upload."""
        if num_bytes >= LEAST_BYTES and seconds > 0:
            self._speeds.append(num_bytes / seconds)

    @property
    def bytes_per_s(self) -> float | None:
        """The median speed of the last uploads; None before the first."""
        speeds = list(self._speeds)
        return median(speeds) if speeds else None


def published(parameters: Mapping[str, str]) -> dict[str, str]:
    """The precisions that a server takes: each with its published name, which holds the hash of a codec's numbers.

    Args:
        parameters: what the served model says of itself.
    """
    if codecs := parameters.get("embedding_codecs", "").split():
        return {name.partition(":")[0]: name for name in codecs}
    types = parameters.get("embedding_datatypes", "FP16").split(",")
    return {name: name for datatype, name in DATATYPES.items() if datatype in types}


def choose(
    request: Request,
    accepted: Mapping[str, str],
    quality: Quality,
    budget_s: float,
    uplink: Uplink,
    held: Collection[str],
) -> Precision:
    """The most exact precision whose upload takes at most budget_s; the smallest one where none does, or where `uplink`
    has measured no upload yet. Where the server holds all items in one precision, this call chooses that one.

    Args:
        accepted: the server's precisions, as `published` gives them; a codec with other numbers is no choice.
        quality: the least exact class that the user accepts.
        budget_s: seconds that an upload may take.
        held: the keys that the server holds, as far as the client knows.
    """
    both = [name for name in TAKES[quality] if name in accepted and _is_same(request, name, accepted[name])]
    if not both or not request.items:
        return "fp16"
    for name in both:
        if all(item.wire_keys.get(item.form(name)) in held for item in request.items):
            return name
    if (speed := uplink.bytes_per_s) is not None:
        for name in both:
            if num_bytes(request, name) / speed <= budget_s:
                return name
    return min(both, key=lambda name: BITS[name])


def taken(request: Request, asked: Precision, accepted: Mapping[str, str], url: str) -> tuple[Precision, str]:
    """The precision in which a request travels whose client has asked for one, and why it is another one: a line that
    names the codec, its numbers on both machines and what travels in its place; "" where it is the one asked for.

    Args:
        accepted: the server's precisions, as `published` gives them.
        url: the server's address, for the line.

    Raises:
        InvalidInput: the server takes neither that nor a fallback. fp32 and fp16 have none: it would be less exact.
    """
    if not request.items or (asked in accepted and _is_same(request, asked, accepted[asked])):
        return asked, ""
    falls = asked in CODECS or asked == "int8"
    instead = next((name for name in FALLBACKS if falls and name != asked and name in accepted), None)
    if instead is None:
        allowed = ", ".join(name for name in PRECISIONS if name in accepted) or "none of ours"
        raise InvalidInput(f"precision is {asked!r}, {url} accepts {allowed}")
    if asked == "int8":
        return instead, f"precision is 'int8', which {url} does not take: {instead} travels in its place"
    ours = next((item.codec(asked) for item in request.items), "") or f"no {asked}"
    theirs = accepted.get(asked, f"no {asked}")
    return instead, (
        f"precision is {asked!r}, and this device has {ours}, {url} {theirs}: {instead} travels in its place; give both "
        "machines the codec.npz of one export"
    )


def num_bytes(request: Request, precision: Precision) -> float:
    """About how many bytes the rows of all items take on the wire."""
    values = 0
    for item in request.items:
        masks = item.masks(precision)
        rows = len(item.main) if masks is None else int(masks.is_sent.sum())
        values += rows * (1 + len(item.deepstack)) * item.main.shape[1]
    return values * BITS[precision] / 8


def _is_same(request: Request, precision: Precision, codec: str) -> bool:
    """Whether every item can travel in a precision: a learned codec needs the same numbers on both machines."""
    return precision == codec or all(item.codec(precision) == codec for item in request.items)
