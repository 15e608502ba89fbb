"""The tensors of wire contract v1, in KServe v2 terms; the launcher writes config.pbtxt files from these lists."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from contract.errors import InvalidInput

VERSION = 1  # raise when a tensor changes its meaning


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: KServe data type, shape with -1 for any length, and its meaning."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    meaning: str


INPUTS = (
    TensorSpec("input_ids", "INT64", (-1,), "prompt tokens with one pad token per embedding row"),
    TensorSpec("text_input", "BYTES", (1,), "instead of input_ids: prompt text with one pad token per item"),
    TensorSpec("attention_mask", "INT64", (-1,), "accepted, must be all ones"),
    TensorSpec(
        "vision_embeddings", "FP16", (-1, -1), "(N, H), or (N, (1+L)*H) packed main first; rows in prompt order"
    ),
    TensorSpec("deepstack_embeddings", "FP16", (-1, -1, -1), "(L, N, H); absent when packed or L = 0"),
    TensorSpec("vision_embeddings_fp32", "FP32", (-1, -1), "the same in full precision, instead of the FP16 tensor"),
    TensorSpec("deepstack_embeddings_fp32", "FP32", (-1, -1, -1), "the same in full precision"),
    TensorSpec("vision_embeddings_q", "INT8", (-1, -1, -1), "(1+L, N, H) quantised, main first; instead of the above"),
    TensorSpec(
        "vision_embeddings_q4", "UINT8", (-1, -1, -1), "(1+L, N, H/2) codec int4: two values a byte, low half first"
    ),
    TensorSpec("vision_stream", "UINT8", (-1,), "codecs ecq and klt: a stream an item, one behind the other"),
    TensorSpec("vision_stream_bytes", "INT64", (-1,), "per item that is sent: the length of its stream"),
    TensorSpec("vision_scales", "FP16", (-1, -1), "(1+L, N): the step of each quantised row"),
    TensorSpec(
        "vision_codec",
        "BYTES",
        (1,),
        "name and hash of the codec, as embedding_codecs publishes it; absent for plain int8",
    ),
    TensorSpec("vision_rows_kept", "BOOL", (-1,), "per row of the grids that are sent: false has no pad and no bytes"),
    TensorSpec(
        "vision_rows_copied", "BOOL", (-1,), "per row of the same: true repeats its place one frame before, no bytes"
    ),
    TensorSpec("image_grid_thw", "INT64", (-1, 3), "per picture: frames, height, width in patches"),
    TensorSpec("video_grid_thw", "INT64", (-1, 3), "per video: frame pairs, height, width in patches"),
    TensorSpec(
        "image_rows", "INT64", (-1,), "instead of image_grid_thw where the layout is rows: rows of each picture"
    ),
    TensorSpec("video_rows", "INT64", (-1,), "instead of video_grid_thw where the layout is rows: rows of each video"),
    TensorSpec(
        "video_second_per_grid",
        "FP32",
        (-1,),
        "per video that is sent: seconds from one frame pair to the next; only of models that publish tokens_per_second",
    ),
    TensorSpec(
        "vision_keys", "BYTES", (-1,), "per item in prompt order: its key, or empty where its tensors come along"
    ),
    TensorSpec("vision_token_positions", "INT64", (-1,), "if sent, must equal the places of the pad tokens"),
    TensorSpec("encoder_fingerprint", "BYTES", (1,), "name of the encoder; required with embeddings"),
    TensorSpec("task", "BYTES", (1,), "generate (where it is absent), embed or score; the model publishes its tasks"),
    TensorSpec("sampling_parameters", "BYTES", (1,), "JSON object, vLLM's names"),
    TensorSpec("stream", "BOOL", (1,), "false: one response with the whole text"),
    TensorSpec("exclude_input_in_output", "BOOL", (1,), "false: the prompt text comes first in text_output"),
    TensorSpec("return_finish_reason", "BOOL", (1,), "ask for finish_reason"),
    TensorSpec("return_num_input_tokens", "BOOL", (1,), "ask for num_input_tokens"),
    TensorSpec("return_num_output_tokens", "BOOL", (1,), "ask for num_output_tokens"),
    TensorSpec("cancel", "BOOL", (1,), "true: ends the running request with the same request id"),
)

OUTPUTS = (
    TensorSpec("text_output", "BYTES", (-1,), "text since the last response"),
    TensorSpec("token_ids", "INT64", (-1,), "tokens since the last response"),
    TensorSpec("finish_reason", "BYTES", (-1,), "stop, length, cancelled or error; empty while running"),
    TensorSpec("error", "BYTES", (-1,), "what failed after the first token; empty otherwise"),
    TensorSpec("num_input_tokens", "UINT32", (-1,), "tokens of the prompt"),
    TensorSpec("num_output_tokens", "UINT32", (-1,), "tokens since the last response"),
    TensorSpec("logprobs", "BYTES", (-1,), "a JSON object per token: id, token, logprob, top; if sampling asks for it"),
    TensorSpec("vision_keys", "BYTES", (-1,), "first response: the key of each item in prompt order"),
    TensorSpec("embedding", "FP32", (-1,), "task embed: (H,), the state behind the last token, of length 1"),
    TensorSpec("score", "FP32", (-1,), "task score: (1,), how likely the model says yes where it says yes or no"),
)

# The optional model for clients that cannot encode: it takes their pictures and returns what a device would compute.
VISION_INPUTS = (
    TensorSpec("image", "BYTES", (-1,), "per picture: the bytes of its file"),
    TensorSpec("pixel_values", "FP32", (-1, -1), "instead of image: patches as the transformers processor makes them"),
    TensorSpec("image_grid_thw", "INT64", (-1, 3), "with pixel_values: per picture frames, height, width in patches"),
    TensorSpec("video_grid_thw", "INT64", (-1, 3), "with pixel_values: the same of the videos, behind the pictures"),
    TensorSpec("video_second_per_grid", "FP32", (-1,), "with video_grid_thw: as the language model takes it"),
)
VISION_OUTPUTS = (
    TensorSpec("vision_embeddings", "FP16", (-1, -1), "(N, H), pictures before videos"),
    TensorSpec("deepstack_embeddings", "FP16", (-1, -1, -1), "(L, N, H)"),
    TensorSpec("image_grid_thw", "INT64", (-1, 3), "per picture: frames, height, width in patches"),
    TensorSpec("video_grid_thw", "INT64", (-1, 3), "per video: frame pairs, height, width in patches"),
    TensorSpec("encoder_fingerprint", "BYTES", (1,), "name of the encoder"),
    TensorSpec("vision_keys", "BYTES", (-1,), "if asked for: the items are kept on the server under these keys"),
)


def check_ranks(tensors: Mapping[str, NDArray[Any]], specs: tuple[TensorSpec, ...]) -> None:
    """Check that each tensor has as many dimensions as its spec, which Triton does not check for a scalar, and a value.

    Raises:
        InvalidInput: a tensor has other dimensions or is empty; the message names it and its shape.
    """
    ranks = {spec.name: len(spec.shape) for spec in specs}
    for name, values in tensors.items():
        if values.ndim != ranks[name]:
            raise InvalidInput(
                f"{name} has shape {list(values.shape)}, {ranks[name]} dimensions are expected", check="rank"
            )
        if not values.size:
            raise InvalidInput(f"{name} is empty, shape {list(values.shape)}: leave it out", check="empty")
