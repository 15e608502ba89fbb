"""Loads the tokenizer of a checkpoint folder, with the small tokenizers library and without an engine's."""

from pathlib import Path

from tokenizers import Tokenizer

from contract.errors import BundleError


def load_tokenizer(folder: Path) -> Tokenizer:
    """tokenizer.json of a checkpoint.

    Raises:
        BundleError: the file is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BundleError(f"{path} does not exist: export the language checkpoint again")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise BundleError(f"{path} is no tokenizer: {error}: export the language checkpoint again") from error
