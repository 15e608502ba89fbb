"""edge_vlm.json of a language checkpoint: it names the encoder to which the checkpoint belongs.

Everything else in the folder is a plain transformers checkpoint without its vision tower.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from contract.card import ModelCard
from contract.errors import BundleError
from contract.families import find
from contract.manifest import check_version, plain, read_json
from contract.typed import check, read

FORMAT_VERSION = 1
NAME, CONFIG = "edge_vlm.json", "config.json"


@dataclass(frozen=True)
class LanguageCheckpoint:
    """The mark that export.language writes. Older checkpoints have no card in it; config.json then gives the card."""

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
        BundleError: the folder is no language checkpoint, has another format version, or has a wrong value.
    """
    mark, config = (read_json(folder / name, "language checkpoint", "export.language") for name in (NAME, CONFIG))
    check_version(mark, folder / NAME, FORMAT_VERSION)
    found = read(LanguageCheckpoint, mark, str(folder / NAME))
    if not found.encoder_fingerprint:
        raise BundleError(f"{folder / NAME} has no encoder_fingerprint: export the checkpoint again")
    if found.card is not None:
        return replace(found.card, encoder_fingerprint=found.encoder_fingerprint)
    source = str(folder / CONFIG)
    for name in ("text_config", "vision_config"):
        check(dict[str, Any], check(dict[str, Any], config, source).get(name, {}), f"{source}: {name}")
    try:
        return find(config.get("model_type")).card(config, found.encoder_fingerprint)
    except BundleError as error:
        raise BundleError(f"{source}: {error}") from error
