"""The wire contract with nothing but tritonclient: it sends tensors to Triton over gRPC and prints each token.

The runtime only encodes here; docs/contract.md has every tensor. The clients of edge_runtime also cancel, retry, keep
deadlines and send each picture once.

python examples/triton_grpc.py picture.png "How many circles are there?" --bundle bundle --triton 127.0.0.1:8001
"""

import argparse
import queue

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

from edge_runtime import Encoder, Pipeline

parser = argparse.ArgumentParser(description="Ask Triton about a picture over gRPC.")
parser.add_argument("picture")
parser.add_argument("question")
parser.add_argument("--bundle", default="bundle")
parser.add_argument("--triton", default="127.0.0.1:8001")
args = parser.parse_args()

request = Pipeline(Encoder.from_bundle(args.bundle)).ask(args.picture, args.question)
tensors = {
    "input_ids": request.input_ids,  # (S,)
    "vision_embeddings": request.main.astype(np.float16),  # (N, H)
    "deepstack_embeddings": request.deepstack.astype(np.float16),  # (L, N, H)
    "image_grid_thw": request.image_grid_thw,  # (1, 3)
    "encoder_fingerprint": np.array([request.encoder_fingerprint.encode()], np.object_),
    "sampling_parameters": np.array([b'{"max_tokens": 64}'], np.object_),
}
inputs = []
for name, array in tensors.items():
    inputs.append(triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
    inputs[-1].set_data_from_numpy(array)

answers: queue.Queue = queue.Queue()
with triton.InferenceServerClient(args.triton) as client:
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer("edge_vlm", inputs)
    is_final = False
    while not is_final:
        result, error = answers.get(timeout=60)
        if error:
            raise SystemExit(f"error: {error}")
        is_final = result.get_response().parameters["triton_final_response"].bool_param
        if (text := result.as_numpy("text_output")) is not None:
            print(b"".join(text).decode(), end="", flush=True)
print()
