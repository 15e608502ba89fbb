"""edge_vlm.json of a language checkpoint: which encoder it belongs to.

Everything else in the folder is a plain transformers checkpoint without its vision tower.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from contract.card import ModelCard
from contract.errors import BundleError
from contract.families import find
from contract.manifest import plain, read_card

FORMAT_VERSION = 1
NAME = "edge_vlm.json"


@dataclass(frozen=True)
class LanguageCheckpoint:
    """The mark that export.language leaves. Checkpoints exported before have no card; config.json then gives it."""

    encoder_fingerprint: str
    has_outer_video_wrapper: bool
    card: ModelCard | None = None
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        values = asdict(self) | {"card": None if self.card is None else plain(self.card)}
        (folder / NAME).write_text(json.dumps(values, indent=2) + "\n")


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
    if mark.get("card") is not None:
        card = read_card(mark["card"], f"{folder / NAME}: card")
        return replace(card, encoder_fingerprint=fingerprint)
    return find(config.get("model_type")).card(config, fingerprint)
