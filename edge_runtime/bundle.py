"""This module verifies and opens an edge bundle: manifest, tokenizer, chat template and the path of the graph."""

from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from contract.checking import Checking
from contract.codecs.numbers import CodecNumbers, read_numbers
from contract.errors import BundleError
from contract.files import Identity, check_named, check_unchanged, read_regular, read_text, verify
from contract.manifest import CHAT_TEMPLATE, GRAPH, NEWLINE, OPENED, TOKENIZER, WEIGHTS, Manifest, parse_manifest
from contract.npy import read_array


@dataclass(frozen=True)
class Bundle:
    """What `python -m export.vision` wrote; this class reads nothing from the network.

    Attributes:
        folder: where the files lie.
        manifest: the facts of the bundle.
        tokenizer: the checkpoint's tokenizer.
        chat_template: the checkpoint's Jinja template.
        numbers: the numbers of the learned codecs; None for bundles of older exports.
        verified: the files whose hash `open` has checked, by name.
        checking: the weights, whose hash a thread checks.
    """

    folder: Path
    manifest: Manifest
    tokenizer: Tokenizer
    chat_template: str
    numbers: CodecNumbers | None = None
    verified: dict[str, Identity] = field(default_factory=dict, repr=False)
    checking: Checking | None = field(default=None, repr=False, compare=False)

    @property
    def graph(self) -> Path:
        return self.folder / GRAPH

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def pad_tokens(self) -> tuple[str, ...]:
        """The names of the tokens that stand for rows of pictures and videos."""
        card = self.manifest.card
        pads = (card.image_token_id, card.video_token_id)
        return tuple(dict.fromkeys(self.token(one) for one in pads if one is not None))

    def check_unchanged(self) -> None:
        """Make sure that the open files are the ones whose hashes are right; waits until the last hash is there. Call it
        once everything is open, and before anything that the weights gave is used.

        Raises:
            BundleError: the weights are missing or changed, or somebody has replaced or written to a file since its hash
                was checked.
        """
        check_unchanged(self.folder, self.verified | (self.checking.found() if self.checking else {}))

    @cached_property
    def newline(self) -> NDArray[np.float32]:
        """The learned row that ends a line of a picture's map, float32 (H,).

        Raises:
            BundleError: the bundle has no such row, or one of another width or dtype.
        """
        path, width = self.folder / NEWLINE, self.manifest.card.hidden_size
        try:
            values = read_array(read_regular(path), str(path))
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}: export the bundle again") from error
        if values.shape != (width,) or values.dtype != np.float32:
            raise BundleError(
                f"{path} has {values.dtype} {list(values.shape)}, float32 [{width}] is expected: export the bundle again"
            )
        return values

    def token(self, token_id: int) -> str:
        """The text of a token that the model's config names.

        Raises:
            BundleError: the tokenizer does not know the token.
        """
        text = self.tokenizer.id_to_token(token_id)
        if text is None:
            raise BundleError(
                f"{self.folder / TOKENIZER} has no token {token_id}, which the model's config names: export the bundle "
                "again from a checkpoint with its own tokenizer"
            )
        return text

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "Bundle":
        """Open and verify a bundle.

        Raises:
            BundleError: a file is missing or changed, or the manifest is of another format version or incomplete.
        """
        bundle = cls.open(folder)
        bundle.check_unchanged()
        return bundle

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> "Bundle":
        """Open a bundle and verify all of it but the weights, which a thread verifies until `check_unchanged`.

        Raises:
            BundleError: as `load`, but for the weights.
        """
        path = Path(folder)
        manifest = parse_manifest(path)
        check_named(path, manifest.files, OPENED)
        weights = {name: digest for name, digest in manifest.files.items() if name == WEIGHTS}
        checking = Checking(path, weights)
        verified = verify(path, {name: digest for name, digest in manifest.files.items() if name != WEIGHTS})
        try:
            tokenizer = Tokenizer.from_file(str(path / TOKENIZER))
        except Exception as error:  # tokenizers raises plain Exception
            raise BundleError(f"{path / TOKENIZER} is no tokenizer: {error}: export the bundle again") from error
        card = manifest.card
        numbers = read_numbers(path, card.hidden_size, card.num_deepstack_levels)
        try:
            template = read_text(path / CHAT_TEMPLATE)
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{path / CHAT_TEMPLATE} is no text: {error}: export the bundle again") from error
        bundle = cls(path, manifest, tokenizer, template, numbers, verified, checking)
        for token_id in card.pad_token_ids:
            bundle.token(token_id)
        return bundle
