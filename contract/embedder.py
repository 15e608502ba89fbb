"""embedder.json of a bundle that makes one vector of a picture or text: what the device knows, and each file's hash."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from contract.manifest import GRAPH, TOKENIZER, WEIGHTS, digests, parse, read_json
from contract.preprocessing import ImageProcessing
from contract.tiles import Tiles
from contract.typed import Between, Size, TokenId

FORMAT_VERSION = 1
NAME = "embedder.json"
TEXT_GRAPH = "text.onnx"
OPENED = (WEIGHTS, f"{TEXT_GRAPH}.data")  # where they lie in the folder


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
        files: each file's digest, as contract.files.digest makes it, by name.
    """

    family: str
    width: Size
    encoder_fingerprint: str
    image: ImageProcessing
    tiles: Tiles
    max_text_tokens: Size
    pads_to_max: bool
    pad_token_id: TokenId
    logit_scale: Annotated[float, Between(0, 1e6)]
    logit_bias: Annotated[float, Between(-1e6, 1e6)]
    precision: str
    opset: Size
    libraries: dict[str, str]
    parity: list[dict[str, Any]]
    gates: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    pads_left: bool = False

    def write(self, folder: Path) -> "EmbedderManifest":
        """Hash the files of `folder` and write the manifest beside them; returns it as written."""
        values = asdict(self) | {"tiles": self.tiles.facts(), "files": digests(folder, but=NAME)}
        (folder / NAME).write_text(json.dumps(values, indent=2) + "\n")
        return parse_embedder(folder)


def parse_embedder(folder: Path) -> EmbedderManifest:
    """Read the manifest; it does not look at the files that the manifest names.

    Raises:
        BundleError: it is missing, unreadable or incomplete, or has another format version or a wrong value.
    """
    path = folder / NAME
    values = read_json(path, "bundle of an embedding model", "export.vision")
    return parse(EmbedderManifest, values, path, FORMAT_VERSION, (GRAPH, TEXT_GRAPH, TOKENIZER))
