"""The tokenizer of a checkpoint folder; needs the small tokenizers library only, not an engine's."""

from pathlib import Path

from tokenizers import Tokenizer

from contract.errors import BundleError


def load_tokenizer(folder: Path) -> Tokenizer:
    """tokenizer.json of a checkpoint.

    Raises:
        BundleError: it is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BundleError(f"{path} does not exist: export the language checkpoint again")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise BundleError(f"{path} is no tokenizer: {error}") from error
