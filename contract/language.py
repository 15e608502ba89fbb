"""edge_vlm.json of a language checkpoint: which encoder it belongs to.

Everything else in the folder is a plain transformers checkpoint without its vision tower.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from contract.card import ModelCard
from contract.errors import BundleError
from contract.families import find

FORMAT_VERSION = 1
NAME = "edge_vlm.json"


@dataclass(frozen=True)
class LanguageCheckpoint:
    """The mark that export.language leaves."""

    encoder_fingerprint: str
    has_outer_video_wrapper: bool
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        (folder / NAME).write_text(json.dumps(asdict(self), indent=2) + "\n")


def read_language_card(folder: Path) -> ModelCard:
    """The card of a language checkpoint.

    Raises:
        BundleError: the folder is no language checkpoint, or of another format version.
    """
    try:
        mark = json.loads((folder / NAME).read_text(encoding="utf-8"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{error.filename} does not exist: {folder} is no language checkpoint (python -m export.language makes one)"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder}: {NAME} or config.json is no JSON: {error}") from error
    if not isinstance(mark, dict) or mark.get("format_version") != FORMAT_VERSION:
        raise BundleError(f"{folder / NAME}: format_version must be {FORMAT_VERSION}: export the checkpoint again")
    fingerprint = mark.get("encoder_fingerprint")
    if not isinstance(fingerprint, str) or not fingerprint:
        raise BundleError(f"{folder / NAME} has no encoder_fingerprint: export the checkpoint again")
    return find(config.get("model_type")).card(config, fingerprint)
