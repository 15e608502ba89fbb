"""The wire contract with nothing but tritonclient: it sends tensors over HTTP and gets the answer in one piece.

The model edge_vlm_unary takes the tensors of edge_vlm and answers once, for clients that cannot hold a stream.

python examples/triton_http.py picture.png "How many circles are there?" --bundle bundle --triton 127.0.0.1:8000
"""

import argparse

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype

from edge_runtime import Encoder, Pipeline

parser = argparse.ArgumentParser(description="Ask Triton about a picture over HTTP.")
parser.add_argument("picture")
parser.add_argument("question")
parser.add_argument("--bundle", default="bundle")
parser.add_argument("--triton", default="127.0.0.1:8000")
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

with triton.InferenceServerClient(args.triton, network_timeout=60.0) as client:
    result = client.infer("edge_vlm_unary", inputs)
print(b"".join(result.as_numpy("text_output")).decode())
