"""The tokenizer's file: a checkpoint's own, or what transformers makes of vocab.json and merges.txt."""

import shutil
from pathlib import Path

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
            f"{folder} has neither {TOKENIZER} nor {' and '.join(PARTS)}: device and server need a tokenizer"
        )


def write_tokenizer(folder: Path, target: Path) -> None:
    """Copy tokenizer.json, or write it from the older files.

    Raises:
        BundleError: there is no tokenizer, or transformers cannot load it.
        MissingExtra: only the older files are there, and transformers is not installed.
    """
    require_tokenizer(folder)
    if (folder / TOKENIZER).is_file():
        shutil.copyfile(folder / TOKENIZER, target)
        return
    extra.require(f"{folder} has no {TOKENIZER}, and converting {' and '.join(PARTS)}", "transformers")
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.save(str(target))
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(f"{folder}: transformers cannot load the tokenizer: {error}") from error
