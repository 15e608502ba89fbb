"""Tensors as tritonclient's inputs; its gRPC and HTTP modules have the same class for them."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import MissingExtra
from edge_runtime.clients.shared_regions import Region, padded
from edge_runtime.encoded_item import WIRE_NAMES

try:
    from tritonclient.utils import np_to_triton_dtype
except ImportError as error:
    raise MissingExtra("talking to a server", "client") from error

Tensors = Mapping[str, NDArray[Any]]
NO_REGION = "find shared memory region"  # Triton's words for a region that it does not know: it has started anew
VISION_NAMES = frozenset(name for pair in WIRE_NAMES.values() for name, _ in pair)


def vision_bytes(tensors: Tensors) -> int:
    """The bytes that the embeddings need in a region."""
    return sum(padded(array.nbytes) for name, array in tensors.items() if name in VISION_NAMES)


def num_items(tensors: Tensors) -> int:
    """How many pictures and videos have their tensors here."""
    return sum(len(tensors[name]) for name in ("image_grid_thw", "video_grid_thw") if name in tensors)


def sent_bytes(tensors: Tensors, region: Region | None) -> int:
    """The bytes of tensor data in the message itself; what lies in a region does not count."""
    sent = [array for name, array in tensors.items() if region is None or name not in VISION_NAMES]
    return sum(sum(map(len, a.ravel())) if a.dtype == np.object_ else a.nbytes for a in sent)


def infer_inputs(triton: ModuleType, tensors: Tensors, region: Region | None) -> list[Any]:
    """The tensors as inputs; this call copies the embeddings into the region where there is one.

    Args:
        triton: tritonclient.grpc or tritonclient.http.
    """
    shared = {name: array for name, array in tensors.items() if region is not None and name in VISION_NAMES}
    offsets = region.write(shared) if region is not None else {}
    inputs = []
    for name, array in tensors.items():
        datatype = "BYTES" if array.dtype == np.object_ else np_to_triton_dtype(array.dtype)
        tensor = triton.InferInput(name, list(array.shape), datatype)
        if region is not None and name in offsets:
            tensor.set_shared_memory(region.name, array.nbytes, offsets[name])
        else:
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
        inputs.append(tensor)
    return inputs
