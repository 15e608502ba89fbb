"""M-RoPE positions of a prompt.

They belong to the sequence: transformers keeps rope_delta on the module, where interleaved requests overwrite each
other's. Here they are computed once a prompt, in numpy, and travel with it.
"""

import numpy as np
from numpy.typing import NDArray


def mrope_positions(
    input_ids: NDArray[np.int64],
    image_grid_thw: NDArray[np.int64],
    video_grid_thw: NDArray[np.int64],
    image_token_id: int,
    video_token_id: int,
    merge_size: int,
) -> tuple[NDArray[np.int64], int]:
    """Positions on the axes temporal, height, width.

    Args:
        input_ids: int64 (S,), with one pad token per embedding row.
        image_grid_thw, video_grid_thw: int64 (k, 3) in patches; a video is one frame group after the other, each
            with its own timestamp text between.

    Returns:
        positions int64 (3, S), and rope_delta: the position of the token after the prompt minus S.

    Raises:
        ValueError: the pads in the prompt are not those of the grids.

    The rule is `Qwen3VLModel.get_rope_index` of transformers 5.23: text advances all axes by one a token; the tokens
    of a frame share one temporal position and the next token stands max(h, w) / merge_size further.
    """
    frames = {
        image_token_id: [(h, w) for t, h, w in image_grid_thw.tolist() for _ in range(t)],
        video_token_id: [(h, w) for t, h, w in video_grid_thw.tolist() for _ in range(t)],
    }
    is_pad = np.isin(input_ids, list(frames))
    pieces: list[NDArray[np.int64]] = []
    next_position, index, used = 0, 0, dict.fromkeys(frames, 0)
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
        if used[token] == len(frames[token]):
            raise ValueError(f"pad token {token} at {index} has no grid: {len(frames[token])} frames were given")
        height, width = (side // merge_size for side in frames[token][used[token]])
        length = height * width
        if not (input_ids[index : index + length] == token).all() or index + length > len(input_ids):
            raise ValueError(f"frame {used[token]} of pad token {token} needs {length} pads from {index} on")
        rows, columns = np.divmod(np.arange(length, dtype=np.int64), width)
        pieces.append(np.stack([np.zeros(length, np.int64), rows, columns]) + next_position)
        next_position += max(height, width)
        index += length
        used[token] += 1
    for token, count in used.items():
        if count != len(frames[token]):
            raise ValueError(f"{len(frames[token])} frames of pad token {token} were given, the prompt has {count}")
    positions = np.concatenate(pieces, axis=1) if pieces else np.zeros((3, 0), np.int64)
    return positions, next_position - len(input_ids)
