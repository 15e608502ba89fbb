"""What a checkpoint says of its answers, checked before anybody copies it: end tokens, vocabulary, chat template.

A server would find these faults only when it starts, or when the first caller asks.
"""

from pathlib import Path
from typing import Any

from contract.errors import BundleError, InvalidInput, shown
from edge_runtime.prompts.chat_template import render
from export.source.checkpoint import Checkpoint

GENERATION, TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
TABLE = "embed_tokens.weight"  # how transformers names the rows of the tokens, behind the model's prefix
SAID = "Hello."
TURNS: tuple[list[dict[str, Any]], ...] = (  # templates read a turn's content as text, as parts, or as both
    [{"role": "user", "content": SAID}],
    [{"role": "user", "content": [{"type": "text", "text": SAID}]}],
)


def check_speech(checkpoint: Checkpoint) -> None:
    """Check what a server needs to end an answer, and a device to write a prompt.

    Raises:
        BundleError: an end token is no token of the vocabulary, the weights have fewer tokens than the vocabulary, or
            the chat template writes no turn of a user.
    """
    _check_ends(checkpoint)
    _check_table(checkpoint)
    _check_template(checkpoint)


def _check_ends(checkpoint: Checkpoint) -> None:
    folder, config = checkpoint.folder, checkpoint.config
    generation = checkpoint.json(GENERATION) if (folder / GENERATION).is_file() else {}
    text = config.get("text_config")
    places = (
        (GENERATION, generation),
        ("config.json", text if isinstance(text, dict) else {}),
        ("config.json", config),
    )
    for name, values in places:  # the server takes the first of them
        if (ends := values.get("eos_token_id")) is not None:
            return _check_ids(folder / name, ends, checkpoint.card.vocab_size)


def _check_ids(path: Path, ends: Any, vocab_size: int) -> None:
    ids = ends if isinstance(ends, list) else [ends]
    if not ids or not all(type(one) is int and 0 <= one < vocab_size for one in ids):
        raise BundleError(
            f"{path}: eos_token_id is {shown(ends)}, ids from 0 to {vocab_size - 1} are expected: no answer would end"
        )


def _check_table(checkpoint: Checkpoint) -> None:
    vocab_size = checkpoint.card.vocab_size
    for file, names in checkpoint.shards.items():
        for name in names:
            if name.endswith(TABLE) and (shape := checkpoint.tensors(file)[name].shape)[0] < vocab_size:
                raise BundleError(
                    f"{checkpoint.folder / 'config.json'}: vocab_size is {vocab_size}, {name} has {shape[0]} rows: copy "
                    "the checkpoint again"
                )


def _check_template(checkpoint: Checkpoint) -> None:
    folder = checkpoint.folder
    named = checkpoint.json(TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "")
    for name, token in named.items():
        content = token.get("content") if isinstance(token, dict) else token
        if name.endswith("_token") and isinstance(content, str):
            special[name] = content
    wrong: list[str] = []
    for turn in TURNS:
        try:
            if SAID in render(checkpoint.chat_template, turn, special_tokens=special):
                return
            wrong.append("it leaves out what the user says")
        except (InvalidInput, BundleError) as error:
            wrong.append(str(error))
    raise BundleError(f"{folder}: the chat template writes no turn of a user: {wrong[0]}")
