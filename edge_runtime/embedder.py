"""This module turns pictures and texts into vectors of one space, on the device alone: without a server or torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from contract.embedder import OPENED, TEXT_GRAPH, EmbedderManifest, parse_embedder
from contract.errors import BundleError, InvalidInput
from contract.files import check_named, check_unchanged, verify
from contract.manifest import GRAPH, TOKENIZER
from edge_runtime.items.item import Item
from edge_runtime.items.one_tile_maker import OneTileMaker
from edge_runtime.media.picture import Picture
from edge_runtime.prompts.tokens import token_ids
from edge_runtime.tower.session import CPU, check_provider, open_session
from edge_runtime.vectors import Vectors, cosines

BATCH = 16  # pictures or texts in one call


@dataclass(frozen=True)
class _Graph:
    graph: Path

    @property
    def weights(self) -> Path:
        return self.graph.with_name(f"{self.graph.name}.data")


class Embedder:
    """A picture tower and a text tower ready to run. Safe to share between threads.

    The vectors are those of transformers' get_image_features and get_text_features; they are not normalised.
    """

    def __init__(
        self,
        manifest: EmbedderManifest,
        tokenizer: Tokenizer,
        pictures: onnxruntime.InferenceSession,
        texts: onnxruntime.InferenceSession,
    ) -> None:
        self.manifest = manifest
        self._tokenizer, self._pictures, self._texts = tokenizer, pictures, texts

    @classmethod
    def from_bundle(
        cls,
        folder: str | PathLike[str],
        *,
        threads: int = 0,
        provider: str = CPU,
        use_kernels: bool = True,
        low_memory: bool = False,
    ) -> "Embedder":
        """Open the bundle of an embedding model, which `python -m export.vision` wrote.

        Args:
            threads, provider, use_kernels, low_memory: as Encoder.from_bundle.

        Raises:
            BundleError: the bundle is damaged or of another kind, or onnxruntime cannot load its graphs.
            InvalidInput: this onnxruntime lacks the provider or cannot bind it, or threads is below 0.
        """
        check_provider(provider, threads)
        path = Path(folder)
        manifest = parse_embedder(path)
        check_named(path, manifest.files, OPENED)
        verified = verify(path, manifest.files)
        try:
            tokenizer = Tokenizer.from_file(str(path / TOKENIZER))
            tokenizer.no_truncation()  # a text that is too long is refused, not cut
            tokenizer.no_padding()
        except Exception as error:  # tokenizers raises plain Exception
            raise BundleError(f"{path / TOKENIZER} is no tokenizer: {error}: export the bundle again") from error
        sessions = [
            open_session(
                _Graph(path / name), provider=provider, threads=threads, use_kernels=use_kernels, low_memory=low_memory
            )
            for name in (GRAPH, TEXT_GRAPH)
        ]
        check_unchanged(path, verified)
        return cls(manifest, tokenizer, *sessions)

    @property
    def maker(self) -> OneTileMaker:
        """Makes the items of pictures."""
        return OneTileMaker(self.manifest.tiles, self.manifest.image.resample)

    def item(self, picture: Picture) -> Item:
        """A picture as the tower wants it.

        Raises:
            MediaError: the picture cannot be decoded, or one side is more than 200 times the other.
        """
        return self.maker(picture)

    def num_tokens(self, text: str) -> int:
        """The number of tokens of a text, without pads."""
        return len(token_ids(self._tokenizer, text))

    def token_ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The token ids of texts, int64 (n, S); pads fill each row up to the longest text, or to the model's most.

        Raises:
            InvalidInput: an entry is no text, or has more tokens than the model takes.
        """
        most, found = self.manifest.max_text_tokens, list[list[int]]()
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidInput(f"texts[{place}] is {type(text).__name__}, a text is expected")
            ids = token_ids(self._tokenizer, text)
            if len(ids) > most:
                raise InvalidInput(f"texts[{place}] has {len(ids)} tokens, up to {most} are allowed: shorten it")
            found.append(ids)
        width = most if self.manifest.pads_to_max else max(map(len, found), default=0)
        filled = np.full((len(found), width), self.manifest.pad_token_id, np.int64)
        for row, ids in zip(filled, found, strict=True):
            row[width - len(ids) if self.manifest.pads_left else 0 :][: len(ids)] = ids
        return filled

    def pictures(self, pictures: Sequence[Picture]) -> Vectors:
        """The vectors of pictures, float32 (n, W); a picture is a path, bytes, a PIL image or an array.

        Raises:
            MediaError: a picture cannot be decoded, or one of its sides is more than 200 times the other.
        """
        found = [np.zeros((0, self.manifest.width), np.float32)]
        for first in range(0, len(pictures), BATCH):
            found.append(self.encode([self.item(picture) for picture in pictures[first : first + BATCH]]))
        return np.concatenate(found)

    def encode(self, items: Sequence[Item]) -> Vectors:
        """The vectors of items, one or more in one call, float32 (n, W)."""
        feeds = {
            "patches": np.concatenate([item.patches for item in items]),
            "grid_thw": np.array([item.grid_thw for item in items], np.int64),
        }
        vectors: Vectors = self._pictures.run(["image_embeds"], feeds)[0]
        return vectors

    def texts(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, float32 (n, W).

        Raises:
            InvalidInput: an entry is no text, or is too long.
        """
        found, ids = [np.zeros((0, self.manifest.width), np.float32)], self.token_ids(texts)
        for first in range(0, len(ids), BATCH):
            found += self._texts.run(["text_embeds"], {"input_ids": ids[first : first + BATCH]})
        return np.concatenate(found)

    def scores(self, pictures: Vectors, texts: Vectors) -> NDArray[np.float32]:
        """The model's score of each picture (n, W) with each text (m, W), float32 (n, m).

        A score is cosine * logit_scale + logit_bias, the logits_per_image of transformers' model.
        """
        scores: NDArray[np.float32] = cosines(pictures, texts) * np.float32(self.manifest.logit_scale)
        return scores + np.float32(self.manifest.logit_bias)
