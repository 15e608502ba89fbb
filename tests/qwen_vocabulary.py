"""Qwen's real tokenizer.json, byte for byte, from its 151,643 tokens in rank order (0.55 MB).

The merges are not stored: the pair a token was merged from is what byte-pair encoding leaves of it when only lower
ranks may merge. The result has the SHA-256 of the file that the Qwen3 and Qwen3-VL checkpoints ship.
tests/data/README.md says where the tokens come from.
"""

import bz2
import hashlib
import json
from itertools import pairwise
from pathlib import Path

PACKED = Path(__file__).parent / "data" / "qwen_tokens.bz2"
OFFICIAL_SHA256 = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = [f"<|{name}|>" for name in (
    "endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start",
    "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad",
)]  # fmt: skip
PLAIN = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
]  # fmt: skip


def pack(tokens: list[bytes]) -> bytes:
    """Tokens in rank order, each behind one byte of length (two where the first is 255)."""
    sizes = (bytes([len(t)]) if len(t) < 255 else b"\xff" + len(t).to_bytes(2, "big") for t in tokens)
    return bz2.compress(b"".join(size + token for size, token in zip(sizes, tokens, strict=True)), 9)


def unpack(data: bytes) -> list[bytes]:
    """The tokens that `pack` packed."""
    plain, tokens, at = bz2.decompress(data), [], 0
    while at < len(plain):
        size, at = plain[at], at + 1
        if size == 255:
            size, at = int.from_bytes(plain[at : at + 2], "big"), at + 2
        tokens.append(plain[at : at + size])
        at += size
    return tokens


def _printable() -> dict[int, str]:
    """GPT-2's table: every byte as a printable character."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in kept}
    others = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that the last merge joined."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [(ranks.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(pairwise(parts))]
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def qwen_tokenizer_json() -> str:
    """The text of tokenizer.json.

    Raises:
        ValueError: the result is not the official file.
    """
    tokens = unpack(PACKED.read_bytes())
    ranks = {token: rank for rank, token in enumerate(tokens)}
    table = _printable()
    show = lambda token: "".join(table[byte] for byte in token)  # noqa: E731
    merges = [[show(part) for part in _halves(token, ranks)] for token in tokens if len(token) > 1]
    names = [(name, True) for name in SPECIAL] + [(name, False) for name in PLAIN]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": len(tokens) + i, "content": name, **flags, "special": special} for i, (name, special) in enumerate(names)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {show(token): rank for rank, token in enumerate(tokens)}, "merges": merges,
        },
    }  # fmt: skip
    text = json.dumps(document, ensure_ascii=False, indent=2)
    if (found := hashlib.sha256(text.encode()).hexdigest()) != OFFICIAL_SHA256:
        raise ValueError(f"tokenizer.json has SHA-256 {found}, the official file {OFFICIAL_SHA256}")
    return text
