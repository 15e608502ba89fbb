"""M-RoPE positions of a prompt.

They belong to the sequence. transformers keeps rope_delta on the module, where interleaved requests overwrite each
other's value. This module computes them once a prompt, in numpy, and they travel with the prompt.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Run = tuple[int, int, int, float]  # frames, height, width in merge blocks, positions from one frame to the next


def mrope_positions(
    input_ids: NDArray[np.int64],
    image_grid_thw: NDArray[np.int64],
    video_grid_thw: NDArray[np.int64],
    image_token_id: int,
    video_token_id: int,
    merge_size: int,
    steps: Sequence[float] | None = None,
) -> tuple[NDArray[np.int64], int]:
    """Positions on the axes temporal, height, width.

    Args:
        input_ids: int64 (S,), with one pad token per embedding row.
        image_grid_thw, video_grid_thw: int64 (k, 3) in patches.
        steps: for each video how many positions one frame stands behind the one before; all pads of the video then
            form one run. None where text stands between the frames of a video, so that each frame is a run of its own.

    Returns:
        positions int64 (3, S), and rope_delta: the position of the token after the prompt minus S.

    Raises:
        ValueError: the prompt has other pads than the grids ask for.

    Without steps the rule is `Qwen3VLModel.get_rope_index` of transformers 5.23. Text advances all axes by one a token;
    the tokens of a frame share one temporal position; the next token stands behind the largest position of the run.
    With steps the rule is that of Qwen2.5-VL's release and of vLLM 0.32 (`get_mrope_input_positions`, qwen2_5_vl.py).
    transformers from 5.3 on puts text behind a video at start + max(h, w) / merge_size, in the middle of the video's
    own positions.
    """
    videos = video_grid_thw.tolist()
    runs: dict[int, list[Run]] = {
        image_token_id: [(1, h, w, 1.0) for t, h, w in image_grid_thw.tolist() for _ in range(t)],
        video_token_id: [(1, h, w, 1.0) for t, h, w in videos for _ in range(t)],
    }
    if steps is not None:
        runs[video_token_id] = [(t, h, w, step) for (t, h, w), step in zip(videos, steps, strict=True)]
    is_pad = np.isin(input_ids, list(runs))
    pieces: list[NDArray[np.int64]] = []
    next_position, index, used = 0, 0, dict.fromkeys(runs, 0)
    while index < len(input_ids):
        if not is_pad[index]:
            rest = is_pad[index:]
            length = int(rest.argmax()) if rest.any() else len(rest)
            text = np.arange(next_position, next_position + length, dtype=np.int64)
            pieces.append(np.broadcast_to(text, (3, length)))
            next_position += length
            index += length
            continue
        token = int(input_ids[index])
        if used[token] == len(runs[token]):
            raise ValueError(f"pad token {token} at {index} has no grid: {len(runs[token])} runs were given")
        placed = _placed(*runs[token][used[token]], merge_size)  # (3, length)
        length = placed.shape[1]
        if not (input_ids[index : index + length] == token).all() or index + length > len(input_ids):
            raise ValueError(f"run {used[token]} of pad token {token} needs {length} pads from {index} on")
        pieces.append(placed + next_position)
        next_position += int(placed.max()) + 1
        index += length
        used[token] += 1
    for token, count in used.items():
        if count != len(runs[token]):
            raise ValueError(f"{len(runs[token])} runs of pad token {token} were given, the prompt has {count}")
    positions = np.concatenate(pieces, axis=1) if pieces else np.zeros((3, 0), np.int64)
    return positions, next_position - len(input_ids)


def _placed(frames: int, height: int, width: int, step: float, merge_size: int) -> NDArray[np.int64]:
    """Positions (3, length) of one run from 0 on; a frame stands at the whole part of its place times the step."""
    shape = (frames, height // merge_size, width // merge_size)
    times, rows, columns = np.indices(shape, dtype=np.int64).reshape(3, -1)
    return np.stack([(times * step).astype(np.int64), rows, columns])
