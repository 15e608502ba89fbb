"""A request as the message that travels on a gRPC stream."""

from uuid import uuid4

import numpy as np
from tritonclient.grpc import service_pb2 as messages
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from contract.names import MODEL
from edge_runtime.clients.infer_inputs import VISION_NAMES, Tensors
from edge_runtime.clients.shared_regions import Region


def infer_message(tensors: Tensors, region: Region | None) -> "messages.ModelInferRequest":
    """The message with the tensors and a new id; this call copies the embeddings into the region where there is one."""
    message = messages.ModelInferRequest(model_name=MODEL, id=uuid4().hex)
    shared = {name: array for name, array in tensors.items() if region is not None and name in VISION_NAMES}
    offsets = region.write(shared) if region is not None else {}
    for name, array in tensors.items():
        is_text = array.dtype == np.object_
        tensor = message.inputs.add(
            name=name, datatype="BYTES" if is_text else np_to_triton_dtype(array.dtype), shape=array.shape
        )
        if region is not None and name in offsets:
            tensor.parameters["shared_memory_region"].string_param = region.name
            tensor.parameters["shared_memory_byte_size"].int64_param = array.nbytes
            tensor.parameters["shared_memory_offset"].int64_param = offsets[name]
        else:
            message.raw_input_contents.append(serialize_byte_tensor(array).item() if is_text else array.tobytes())
    return message
