"""The tokenizer's file, as transformers understands it: a checkpoint's own, or what transformers makes of it."""

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from contract.errors import BundleError
from contract.manifest import TOKENIZER
from export import extra

PARTS = ("vocab.json", "merges.txt")


def require_tokenizer(folder: Path) -> None:
    """Check that a checkpoint has a tokenizer.

    Raises:
        BundleError: it has none.
    """
    if not (folder / TOKENIZER).is_file() and not all((folder / name).is_file() for name in PARTS):
        raise BundleError(
            f"{folder} has neither {TOKENIZER} nor {' and '.join(PARTS)}: copy the tokenizer's files of the model into it"
        )


def write_tokenizer(folder: Path, target: Path) -> str:
    """Write the tokenizer that transformers makes of a checkpoint; where tokenizer.json is the same, copy that file.

    Some classes of transformers 5.23 take a file's vocabulary and merges and put rules of their own around them:
    Llama's put another one before the first word, Qwen2's another normaliser. Models meet those ids, so the device
    writes them.

    Returns:
        A warning where transformers is not installed, so that nobody knows what it would make; else an empty text.

    Raises:
        BundleError: the checkpoint has no tokenizer, or transformers cannot load it.
        MissingExtra: the checkpoint has only the older files, and transformers is not installed.
    """
    require_tokenizer(folder)
    file = folder / TOKENIZER
    if not file.is_file():
        extra.require(f"{folder} has no {TOKENIZER}, and converting {' and '.join(PARTS)}", "transformers")
    elif not extra.is_installed("transformers"):
        shutil.copyfile(file, target)
        return f"{TOKENIZER} is copied as it is: transformers, which may read it otherwise, is not installed"
    from transformers import AutoTokenizer

    try:
        made = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.to_str(pretty=True)
        if file.is_file() and _values(Tokenizer.from_file(str(file)).to_str()) == _values(made):
            shutil.copyfile(file, target)
        else:
            target.write_text(made, encoding="utf-8")
    except Exception as error:  # tokenizers raises the base class
        raise BundleError(f"{folder}: transformers cannot load the tokenizer: {error}") from error
    return ""


def _values(text: str) -> Any:
    """A tokenizer's JSON values, with one spelling for absent affixes."""
    values = json.loads(text)
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if not values["model"].get(name):
            values["model"].pop(name, None)
    return values
