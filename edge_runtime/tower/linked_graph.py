"""A graph whose files are symbolic links, as in the cache of a model hub, and with DVC, Nix and Kubernetes.

onnxruntime 1.31 does not read the weights of a Loop's body through a symbolic link. So this module follows links before
onnxruntime sees a path. Where the weights lie under another name than the graph says, onnxruntime gets the graph as
bytes that hold the true name, and beside them the folder of the weights. The numbers of the fields are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from pathlib import Path
from typing import Protocol

import onnxruntime

from contract.errors import BundleError

WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"  # onnxruntime_session_options_config_keys.h
# Where tensors stand in a model: the fields of each message that lead to one, and the message each field holds.
FIELDS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {13: "external"},
}
LOCATION = b"\x0a\x08location\x12"  # key = "location", and the tag of the value


class GraphFiles(Protocol):
    """A graph and the file of its weights."""

    @property
    def graph(self) -> Path: ...

    @property
    def weights(self) -> Path: ...


def graph_source(bundle: GraphFiles, options: onnxruntime.SessionOptions) -> str | bytes:
    """The graph for onnxruntime: its path, or its bytes; with bytes, the call puts the weights' folder into `options`.

    Raises:
        BundleError: the graph is no ONNX model.
    """
    graph, weights = (Path(path).resolve() for path in (bundle.graph, bundle.weights))
    if graph.parent == weights.parent and weights.name == bundle.weights.name:
        return str(graph)
    options.add_session_config_entry(WEIGHTS_FOLDER, str(weights.parent))
    try:
        return _located(memoryview(graph.read_bytes()), "model", weights.name.encode())
    except (IndexError, KeyError) as error:
        raise BundleError(f"{bundle.graph} is no ONNX model: export the bundle again") from error


def _located(message: memoryview, kind: str, name: bytes) -> bytes:
    """The message with every location of external data replaced by `name`."""
    if kind == "external":
        is_location = bytes(message[: len(LOCATION)]) == LOCATION
        return LOCATION + _varint_bytes(len(name)) + name if is_location else bytes(message)
    written, at = bytearray(), 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        if tag & 7 == 2:  # a field of bytes, with their length in front
            size, at = _varint(message, at)
            inner, at = message[at : at + size], at + size
            if (child := FIELDS[kind].get(tag >> 3)) is not None:
                changed = _located(inner, child, name)
                written += _varint_bytes(tag) + _varint_bytes(len(changed)) + changed
                continue
        elif tag & 7 == 0:
            _, at = _varint(message, at)
        else:
            at += {1: 8, 5: 4}[tag & 7]
        written += message[start:at]
    return bytes(written)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _varint_bytes(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)
