"""What the device sends and what comes back, as arrays; the two clients only differ in how these travel."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contract.sampling import Sampling

Precision = Literal["fp16", "fp32"]


@dataclass(frozen=True)
class Request:
    """A prompt with its embeddings.

    Attributes:
        input_ids: int64 (S,), one pad token per embedding row.
        main, deepstack: float32 (N, H) and (L, N, H).
        image_grid_thw, video_grid_thw: int64 (k, 3) in patches.
        num_encoded: pictures and videos the tower ran on; the others came from the cache.
    """

    input_ids: NDArray[np.int64]
    main: NDArray[np.float32]
    deepstack: NDArray[np.float32]
    image_grid_thw: NDArray[np.int64]
    video_grid_thw: NDArray[np.int64]
    encoder_fingerprint: str
    num_encoded: int = 0

    def tensors(
        self, sampling: Sampling, precision: Precision = "fp16", stream: bool = True
    ) -> dict[str, NDArray[Any]]:
        """The tensors of wire contract v1 by name; BYTES as object arrays."""
        given = {k: v for k, v in asdict(sampling).items() if v not in (None, ())}
        tensors: dict[str, NDArray[Any]] = {
            "input_ids": self.input_ids,
            "sampling_parameters": np.array([json.dumps(given).encode()], np.object_),
            "stream": np.array([stream]),
            "return_finish_reason": np.array([True]),
            "return_num_input_tokens": np.array([True]),
            "return_num_output_tokens": np.array([True]),
        }
        if len(self.main):
            dtype, suffix = (np.float16, "") if precision == "fp16" else (np.float32, "_fp32")
            tensors["vision_embeddings" + suffix] = self.main.astype(dtype)
            if len(self.deepstack):
                tensors["deepstack_embeddings" + suffix] = self.deepstack.astype(dtype)
            tensors["encoder_fingerprint"] = np.array([self.encoder_fingerprint.encode()], np.object_)
        for name in ("image_grid_thw", "video_grid_thw"):
            if len(grid := getattr(self, name)):
                tensors[name] = grid
        return tensors


@dataclass(frozen=True)
class Delta:
    """A piece of an answer. finish_reason is empty until the last piece."""

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: str = ""
    num_input_tokens: int = 0


def upload_bytes(tensors: dict[str, NDArray[Any]]) -> int:
    """Bytes of tensor data that travel."""
    return sum(sum(len(x) for x in a.ravel()) if a.dtype == np.object_ else a.nbytes for a in tensors.values())


def read_delta(outputs: dict[str, NDArray[Any]]) -> Delta:
    """A response's tensors as a Delta."""

    def text(name: str) -> str:
        values = outputs.get(name)
        return b"".join(values.ravel().tolist()).decode() if values is not None else ""

    ids, count = outputs.get("token_ids"), outputs.get("num_input_tokens")
    return Delta(
        text("text_output"),
        tuple(ids.ravel().tolist()) if ids is not None else (),
        text("finish_reason"),
        int(count.ravel()[0]) if count is not None and count.size else 0,
    )
