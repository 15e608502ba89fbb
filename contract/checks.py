"""Every check a request meets, with the error that answers it; docs/contract.md is written from this, tests try each row.

`says` are the words by which a message is known; the offending value and the allowed one stand around them.
"""

from dataclasses import dataclass

from contract.errors import (
    DeadlineExceeded,
    EdgeVlmError,
    FingerprintMismatch,
    InvalidInput,
    MediaError,
    NotFound,
    ServerError,
    Unavailable,
)

# By code: HTTP infer, gRPC. On streams and `generate` Triton answers 400 whatever the code, which the text repeats.
STATUSES = {
    "INVALID_ARG": (400, "INVALID_ARGUMENT"),
    "NOT_FOUND": (404, "NOT_FOUND"),
    "UNAVAILABLE": (503, "UNAVAILABLE"),
    "DEADLINE_EXCEEDED": (503, "UNAVAILABLE"),  # Triton has no code of its own for it
    "INTERNAL": (500, "INTERNAL"),
}


@dataclass(frozen=True)
class Check:
    """One thing that is checked: in which tensor or parameter, what is allowed, and how a violation is answered."""

    tensor: str
    allowed: str
    says: str
    error: type[EdgeVlmError] = InvalidInput


CHECKS = {
    "rank": Check("any", "as many dimensions as the contract says", "dimensions are expected"),
    "empty": Check("any", "at least one value; absent tensors are left out", "is empty, shape"),
    "utf-8": Check("text tensors", "UTF-8", "is no UTF-8"),
    "json": Check("sampling_parameters", "JSON", "is no JSON"),
    "json-object": Check("sampling_parameters", "a JSON object", "a JSON object is expected"),
    "sampling-name": Check("sampling_parameters", "the names below", ", allowed are "),
    "sampling-value": Check("sampling_parameters", "the ranges below", " to "),
    "sampling-flag": Check("sampling_parameters", "true or false for ignore_eos", "true or false is allowed"),
    "sampling-list": Check("sampling_parameters", "lists for stop and stop_token_ids", "a list is expected"),
    "stop": Check("sampling_parameters", "up to 16 non-empty stop strings", "non-empty strings are allowed"),
    "structured-outputs": Check("sampling_parameters", "an object for structured_outputs", "an object is expected"),
    "parameter": Check("request parameters", "names of sampling parameters", "is neither an input nor a parameter"),
    "max-tokens": Check("sampling_parameters", "max_tokens up to max_output_tokens", "max_tokens is"),
    "max-keys": Check("vision_keys", "up to max_items entries", "entries, "),
    "max-items": Check("image_grid_thw, video_grid_thw", "up to max_items together", "pictures and videos, "),
    "grid-side": Check("image_grid_thw, video_grid_thw", "sides from 1 to 32768", "sides from 1 to"),
    "grid-even": Check("image_grid_thw, video_grid_thw", "height and width a multiple of 2", "must be multiples of"),
    "grid-frames": Check("image_grid_thw", "t = 1", "a picture has t = 1"),
    "key-count": Check("vision_keys", "an empty entry per item that is sent", "empty entries, the grids have"),
    "key-unknown": Check("vision_keys", "keys this server holds", "which this server does not hold", NotFound),
    "keep-items": Check("sampling_parameters", "items to keep with max_tokens 0", "there are none"),
    "keep-off": Check("sampling_parameters", "max_tokens 0 where max_reuse_bytes is not 0", "this server keeps none"),
    "prompt": Check("input_ids, text_input", "exactly one of them", "send exactly one of them"),
    "text-length": Check("text_input", "64 characters a token of max_prompt_tokens", " characters, "),
    "key-pads": Check("vision_keys", "an entry per item of the prompt", "the prompt has pads for"),
    "key-kind": Check("vision_keys", "a picture where the prompt has a picture's pads", "the prompt has the pads of a"),
    "key-grid": Check("vision_keys", "a grid of the right kind for each empty entry", "has no grid left for it"),
    "text-rows": Check("text_input", "grids of up to max_prompt_tokens rows", "the grids ask for"),
    "text-pads": Check("text_input", "one pad a picture and one a frame pair", "one each is expected"),
    "ids-length": Check("input_ids", "up to max_prompt_tokens", "send smaller pictures or less text"),
    "ids-range": Check("input_ids", "ids of the vocabulary", "ids from 0 to"),
    "fingerprint": Check("encoder_fingerprint", "present with embeddings", "encoder_fingerprint is missing"),
    "fingerprint-other": Check("encoder_fingerprint", "this model's", "this server answers for", FingerprintMismatch),
    "one-form": Check("embeddings", "one form", "are both given: send one of them"),
    "pair": Check("embeddings", "both tensors of one form", "send both of one form"),
    "embeddings": Check("embeddings", "present where grids are sent", "vision_embeddings is missing"),
    "bytes": Check("embeddings", "up to max_embedding_bytes", "the embeddings have"),
    "decoded-bytes": Check("embeddings", "up to max_embedding_bytes as FP32", "the embeddings decode to"),
    "rows": Check("vision_embeddings", "as many rows as the grids ask for", "rows, the grids ask for"),
    "packed": Check("vision_embeddings", "(1+L)*H wide without deepstack_embeddings", "rows packed"),
    "width": Check("vision_embeddings", "H wide", "wide, "),
    "deepstack": Check("deepstack_embeddings", "(L, N, H)", "deepstack_embeddings"),
    "quantised": Check("vision_embeddings_q", "(1+L, N, H)", "vision_embeddings_q has shape"),
    "scales": Check("vision_scales", "present with vision_embeddings_q", "scales with vision_embeddings_q"),
    "scales-shape": Check("vision_scales", "(1+L, N)", "vision_scales has shape"),
    "int4": Check("vision_embeddings_q4", "(1+L, N, H/2)", "vision_embeddings_q4 has shape"),
    "int4-value": Check("vision_embeddings_q4", "half bytes that stand for -7 to 7", "stands for no value"),
    "codec": Check("vision_codec", "one of embedding_codecs, hash included", "this server knows"),
    "codec-form": Check("vision_codec", "the codec of the tensor that is sent", "which goes with"),
    "codec-none": Check("vision_codec", "present with int4 and streams", "vision_codec is missing"),
    "stream-lengths": Check("vision_stream_bytes", "a length an item, vision_stream together", "vision_stream_bytes"),
    "stream": Check("vision_stream", "whole streams of the items' rows, undamaged", "vision_stream"),
    "finite": Check("embeddings", "neither NaN nor infinity", "only finite values are allowed"),
    "pads": Check("input_ids", "as many pads as rows", "pad tokens"),
    "pad-runs": Check("input_ids", "the pads of a picture or frame side by side", "do not stand side by side"),
    "mask": Check("attention_mask", "all ones, as long as input_ids", "attention_mask has shape"),
    "positions": Check("vision_token_positions", "the places of the pads", "vision_token_positions has"),
    # by the engine
    "engine-has": Check("sampling_parameters", "structured_outputs with the engine vllm", "needs the engine vllm"),
    "kv-bytes": Check("input_ids, max_tokens", "up to max_kv_bytes of keys and values", "bytes of keys and values"),
    "number-format": Check("embeddings", "values the model's number format holds", "values too large for"),
    "queue": Check("the server", "max_active and max_waiting requests at once", "running or waiting", Unavailable),
    "queue-time": Check("the server", "max_queue_seconds of waiting", "no slot became free within", DeadlineExceeded),
    "timeout": Check("timeout parameter", "a first token in time", "before the first token", DeadlineExceeded),
    "cancel": Check("cancel", "the id of a running request", "is running", NotFound),
    "engine": Check("the server", "a working engine", "", ServerError),
}
VISION_CHECKS = {
    "source": Check("image, pixel_values", "exactly one of them", "send one of them"),
    "grids": Check("image_grid_thw, video_grid_thw", "only with pixel_values", "goes with pixel_values"),
    "pictures": Check("image", "up to max_items pictures", " pictures, "),
    "no-bytes": Check("image", "the bytes of a file", "is empty", MediaError),
    "picture": Check("image", "a picture that can be decoded whole, of 2^27 pixels at most", "", MediaError),
    "patches": Check("pixel_values", "the patches the grids ask for", "pixel_values has shape"),
    "pixels": Check("pixel_values", "grey levels, normalised as the model's are", "pixel_values has values"),
    "picture-rows": Check("image, grids", "up to max_prompt_tokens rows", "the pictures have"),
}
