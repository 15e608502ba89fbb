"""Whether a checkpoint's weights can be read, judged by their headers before a server starts over them.

The libraries that read weights raise errors of any type on a damaged file, one follows an index out of the folder, and
each does so only after it has loaded for half a minute. Source of the layout: the format section of
huggingface/safetensors' README.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from contract.errors import BundleError, shown
from contract.files import is_plain_name
from contract.quantisation import read_config

INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # the library's own limit
# The engine judges other types; this module checks their places in the file all the same.
ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
ITEM_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
LAYER = re.compile(r"\blayers\.(\d+)\.")
AGAIN = "copy the checkpoint again, or export it again"


def check_weights(folder: Path) -> None:
    """Check the index and the header of every weights file in a checkpoint folder, and that no layer is missing.

    Raises:
        BundleError: there are no weights, the index names a file outside the folder or one that is missing, a file is
            damaged or cut short, or config.json names more layers than there are; the message says which.
    """
    _check_layers(folder, tensor_names(folder))


def tensor_names(folder: Path) -> list[str]:
    """The names of the tensors of a checkpoint; this checks its files as `check_weights` does.

    Raises:
        BundleError: as check_weights.
    """
    paths = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    if index.is_file():
        paths = [folder / name for name in sorted(_shards(index))]
    if not paths:
        raise BundleError(f"{folder} has no *.safetensors: {AGAIN}")
    names = list[str]()
    for path in paths:
        if not path.is_file():
            raise BundleError(f"{path} is missing, {INDEX} names it: {AGAIN}")
        names += _checked_names(path)
    return names


def _check_layers(folder: Path, names: list[str]) -> None:
    """The engine makes every layer that config.json names before it misses weights: a million take it for ever."""
    try:
        config = read_config(folder)
        wanted = config.get("text_config", config).get("num_hidden_layers")
    except (BundleError, RecursionError, AttributeError):
        return  # the engine reads the file first, and says what is wrong with it
    found = 1 + max((int(match[1]) for match in map(LAYER.search, names) if match), default=-1)
    if isinstance(wanted, int) and wanted > found:
        raise BundleError(
            f"{folder / 'config.json'}: num_hidden_layers is {shown(wanted)}, the weights have {found} layers: {AGAIN}"
        )


def _shards(index: Path) -> set[str]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{index} has no weight_map of tensors to files: {AGAIN}") from error
    for name in names:
        if not isinstance(name, str) or not is_plain_name(name):
            raise BundleError(f"{index} names the file {shown(name)}, a file beside it is expected: {AGAIN}")
    return set(names)


def _checked_names(path: Path) -> list[str]:
    """The names of the tensors of a file whose header is right."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise BundleError(f"{path} has {size} bytes and a header of {length}: {AGAIN}")
        text = file.read(length)
    try:
        header = json.loads(text)
        end = 0
        for start, stop in sorted(_place(name, value) for name, value in header.items() if name != "__metadata__"):
            if start != end:
                raise ValueError(f"its tensors leave a gap or overlap at byte {end}")
            end = stop
    except (ValueError, RecursionError, AttributeError) as error:
        raise BundleError(f"{path} is damaged, {error}: {AGAIN}") from error
    if end != size - 8 - length:
        raise BundleError(f"{path} has {size - 8 - length} bytes of tensors, its header says {end}: {AGAIN}")
    return [name for name in header if name != "__metadata__"]


def _place(name: str, value: Any) -> tuple[int, int]:
    """The first byte of a tensor and the one behind its last, by its header entry; ValueError where that is wrong."""
    entry: dict[str, Any] = value if isinstance(value, dict) else {}
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
            raise ValueError(f"the entry of {shown(name)} is {shown(value)}")
    if len(offsets) != 2 or offsets[0] > offsets[1] or not isinstance(entry.get("dtype"), str):
        raise ValueError(f"the entry of {shown(name)} is {shown(value)}")
    expected = ITEM_BYTES.get(entry["dtype"], 0) * math.prod(shape)
    if entry["dtype"] in ITEM_BYTES and offsets[1] - offsets[0] != expected:
        raise ValueError(f"{shown(name)} has {offsets[1] - offsets[0]} bytes where its shape needs {expected}")
    return offsets[0], offsets[1]
