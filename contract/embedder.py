"""embedder.json of a bundle that makes one vector of a picture or text: what the device knows, and each file's hash."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from contract.errors import BundleError
from contract.files import is_plain_name, sha256
from contract.manifest import GRAPH, TOKENIZER
from contract.preprocessing import ImageProcessing
from contract.tiles import Tiles
from contract.typed import read

FORMAT_VERSION = 1
NAME = "embedder.json"
TEXT_GRAPH = "text.onnx"


@dataclass(frozen=True)
class EmbedderManifest:
    """What a bundle of two towers holds.

    Attributes:
        family: transformers' model_type.
        width: values of a vector.
        max_text_tokens: the most tokens of one text, with those that the tokenizer puts around it.
        pads_to_max: the device fills every text with `pad_token_id` to max_text_tokens, and the text tower sees the
            filling.
        pads_left: the filling stands before the text, not behind it.
        logit_scale, logit_bias: a cosine times the first plus the second is the model's score of a picture and a text.
        parity: rows of pictures and of texts against transformers, as the export measured them.
        gates: one row for each kind of input that the export compared with transformers.
        files: each file's SHA-256 as 64 hex digits, by name.
    """

    family: str
    width: int
    encoder_fingerprint: str
    image: ImageProcessing
    tiles: Tiles
    max_text_tokens: int
    pads_to_max: bool
    pad_token_id: int
    logit_scale: float
    logit_bias: float
    precision: str
    opset: int
    libraries: dict[str, str]
    parity: list[dict[str, Any]]
    gates: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    pads_left: bool = False

    def write(self, folder: Path) -> "EmbedderManifest":
        """Hash the files of `folder` and write the manifest beside them; returns it as written."""
        names = sorted(path.name for path in folder.iterdir() if path.name != NAME)
        whole = replace(self, files={name: sha256(folder / name) for name in names})
        values = asdict(whole) | {"tiles": self.tiles.facts()}
        (folder / NAME).write_text(json.dumps(values, indent=2) + "\n")
        return whole


def parse_embedder(folder: Path) -> EmbedderManifest:
    """Read the manifest; it does not look at the files that the manifest names.

    Raises:
        BundleError: it is missing, unreadable or incomplete, or has another format version or a wrong value.
    """
    path = folder / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} does not exist: {folder} is no bundle of an embedding model (python -m export.vision makes one)"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is no JSON: {error}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version is {version!r}, this version reads {FORMAT_VERSION}: export the bundle again"
        )
    found = read(EmbedderManifest, values, str(path))
    for name in (GRAPH, TEXT_GRAPH, TOKENIZER):
        if name not in found.files:
            raise BundleError(f"{path}: files has no {name!r}: export the bundle again")
    if not all(is_plain_name(name) and name != NAME for name in found.files):
        raise BundleError(f"{path}: files may only name files of the bundle itself")
    return found
