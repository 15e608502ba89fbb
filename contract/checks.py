"""Every check that a request meets, with the error that answers it.

contract.document writes the tables of docs/contract.md from these; the tests try each row.

The error that a check raises carries the check's name (`EdgeVlmError.check`), by which the tests know it.
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
    """One thing that the server checks: the tensor or parameter, what it allows there, and the error if it refuses."""

    tensor: str
    allowed: str
    error: type[EdgeVlmError] = InvalidInput


CHECKS = {
    "rank": Check("any", "as many dimensions as the contract says"),
    "empty": Check("any", "at least one value; absent tensors are left out"),
    "utf-8": Check("text tensors", "UTF-8"),
    "json": Check("sampling_parameters", "JSON"),
    "json-object": Check("sampling_parameters", "a JSON object"),
    "sampling-name": Check("sampling_parameters", "the names below"),
    "sampling-value": Check("sampling_parameters", "the ranges below"),
    "sampling-flag": Check("sampling_parameters", "true or false for ignore_eos and skip_special_tokens"),
    "sampling-list": Check("sampling_parameters", "lists for stop and stop_token_ids"),
    "sampling-length": Check("sampling_parameters, request parameters", "up to 262144 characters of JSON"),
    "stop": Check("sampling_parameters", "up to 16 non-empty stop strings of up to 256 characters"),
    "stop-ids": Check("sampling_parameters", "up to 1024 stop_token_ids"),
    "structured-outputs": Check("sampling_parameters", "an object for structured_outputs"),
    "structured-depth": Check("sampling_parameters", "structured_outputs up to 64 levels deep"),
    "parameter": Check("request parameters", "names of sampling parameters, and timeout"),
    "task": Check("task", "generate, embed or score"),
    "task-model": Check("task", "what the model publishes as tasks"),
    "timeout-value": Check("timeout parameter", "whole microseconds from 1 to 2^62"),
    "max-tokens": Check("sampling_parameters", "max_tokens up to max_output_tokens"),
    "max-keys": Check("vision_keys", "up to max_items entries"),
    "max-items": Check("image_grid_thw, video_grid_thw", "up to max_items together"),
    "rows-layout": Check("image_rows, video_rows", "only where the published layout is rows"),
    "rows-or-grid": Check("image_rows, video_rows", "without the grids of the same kind"),
    "rows-count": Check("image_rows, video_rows", "from 1 to 32768 rows an item"),
    "grid-side": Check("image_grid_thw, video_grid_thw", "sides from 1 to 32768"),
    "grid-even": Check("image_grid_thw, video_grid_thw", "height and width a multiple of 2"),
    "grid-frames": Check("image_grid_thw", "t = 1"),
    "seconds": Check("video_second_per_grid", "a time above 0 a video that is sent, of models with tokens_per_second"),
    "key-count": Check("vision_keys", "an empty entry per item that is sent"),
    "key-unknown": Check("vision_keys", "keys this server holds", NotFound),
    "keep-items": Check("sampling_parameters", "items to keep with max_tokens 0"),
    "keep-off": Check("sampling_parameters", "max_tokens 0 where max_reuse_bytes is not 0"),
    "prompt": Check("input_ids, text_input", "exactly one of them"),
    "text-length": Check("text_input", "64 bytes a token that the prompt may have"),
    "key-pads": Check("vision_keys", "an entry per item of the prompt"),
    "key-kind": Check("vision_keys", "a picture where the prompt has a picture's pads"),
    "key-grid": Check("vision_keys", "a grid of the right kind for each empty entry"),
    "text-rows": Check("text_input", "grids of up to max_prompt_tokens rows"),
    "text-pads": Check("text_input", "one pad a picture and one a frame pair"),
    "no-tokens": Check("text_input", "at least one token"),
    "ids-length": Check("input_ids, text_input", "up to max_prompt_tokens and the model's context"),
    "ids-range": Check("input_ids", "ids of the vocabulary"),
    "fingerprint": Check("encoder_fingerprint", "present with embeddings"),
    "fingerprint-other": Check("encoder_fingerprint", "this model's", FingerprintMismatch),
    "one-form": Check("embeddings", "one form"),
    "pair": Check("embeddings", "both tensors of one form"),
    "embeddings": Check("embeddings", "present where grids are sent"),
    "bytes": Check("embeddings", "up to max_embedding_bytes"),
    "decoded-bytes": Check("embeddings", "up to max_embedding_bytes decoded, copied rows included"),
    "rows": Check("vision_embeddings", "as many rows as the grids ask for"),
    "packed": Check("vision_embeddings", "(1+L)*H wide without deepstack_embeddings"),
    "width": Check("vision_embeddings", "H wide"),
    "deepstack": Check("deepstack_embeddings", "(L, N, H)"),
    "quantised": Check("vision_embeddings_q", "(1+L, N, H)"),
    "scales": Check("vision_scales", "present with vision_embeddings_q"),
    "scales-shape": Check("vision_scales", "(1+L, N)"),
    "int4": Check("vision_embeddings_q4", "(1+L, N, H/2)"),
    "int4-value": Check("vision_embeddings_q4", "half bytes that stand for -7 to 7"),
    "codec": Check("vision_codec", "one of embedding_codecs, hash included"),
    "codec-form": Check("vision_codec", "the codec of the tensor that is sent"),
    "codec-none": Check("vision_codec", "present with int4 and streams"),
    "stream-lengths": Check("vision_stream_bytes", "a length an item, vision_stream together"),
    "stream": Check("vision_stream", "whole streams of the items' rows, undamaged"),
    "mask-length": Check("vision_rows_kept, vision_rows_copied", "an entry a row of the grids that are sent"),
    "mask-empty": Check("vision_rows_kept", "at least 1 row of every picture and frame"),
    "mask-first": Check("vision_rows_copied", "rows of videos, from the second frame on"),
    "mask-copied": Check("vision_rows_copied", "kept rows, whose place is kept one frame before"),
    "mask-rows": Check("vision_rows_kept", "grids of up to 8 times max_prompt_tokens rows"),
    "mask-pads": Check("input_ids, vision_rows_kept", "a pad a kept row"),
    "finite": Check("embeddings", "neither NaN nor infinity"),
    "pads": Check("input_ids", "as many pads as rows"),
    "pad-runs": Check("input_ids", "the pads of a picture or frame side by side"),
    "mask": Check("attention_mask", "all ones, as long as input_ids"),
    "positions": Check("vision_token_positions", "the places of the pads"),
    # by the engine
    "no-choice": Check("sampling_parameters", "with min_tokens a token that does not end the answer"),
    "constraint": Check("sampling_parameters", "exactly one of the names of structured_outputs"),
    "grammar": Check("sampling_parameters", "structured_outputs that compile within 3 s of CPU time and 64 MiB"),
    "grammars": Check("the server", "18 grammars tried at once, those that wait included", Unavailable),
    "kept-engine": Check("vision_rows_kept", "all rows, where rows does not say kept"),
    "kv-bytes": Check("input_ids, max_tokens", "up to max_kv_bytes of keys and values"),
    "number-format": Check("embeddings", "values, and sums of them, that the model's number format holds"),
    "queue": Check("the server", "max_active and max_waiting requests at once", Unavailable),
    "queue-time": Check("the server", "max_queue_seconds of waiting", DeadlineExceeded),
    "timeout": Check("timeout parameter", "a first token in time", DeadlineExceeded),
    "cancel-id": Check("cancel", "a request id with it"),
    "cancel": Check("cancel", "the id of a running request", NotFound),
    "engine": Check("the server", "a working engine", ServerError),
}
VISION_CHECKS = {
    "source": Check("image, pixel_values", "exactly one of them"),
    "grids": Check("image_grid_thw, video_grid_thw", "only with pixel_values"),
    "pictures": Check("image", "up to max_items pictures"),
    "no-bytes": Check("image", "the bytes of a file", MediaError),
    "picture": Check("image", "a picture that can be decoded whole, of 2^27 pixels at most", MediaError),
    "patches": Check("pixel_values", "the patches the grids ask for"),
    "pixels": Check("pixel_values", "grey levels, normalised as the model's are"),
    "picture-rows": Check("image, grids", "up to max_prompt_tokens rows"),
}
