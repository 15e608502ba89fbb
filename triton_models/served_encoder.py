"""The edge's own encoder on the server, for clients too weak to run it: the arrays of a request in, and out.

It runs the very same code and bundle as a device, with the device's limits on decoding, so that the rows are the same
bits. It fetches nothing and opens no file that a client names: a picture is the bytes of its file, or a data: URL where
it comes as JSON.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import InvalidInput, MediaError
from contract.grids import check_items, num_rows
from contract.limits import Limits
from contract.seconds import check_seconds
from contract.tensors import VISION_INPUTS, check_ranks
from edge_runtime import Encoder, Pipeline
from edge_runtime.items.item import Item
from edge_runtime.items.maker import PATIENT, Asker
from edge_runtime.items.patches import to_bytes
from edge_runtime.items.workers import LEFT, DecodingLimits

DECODING = DecodingLimits(num_workers=4)

Tensors = dict[str, NDArray[Any]]


class ServedEncoder:
    """A tower over a bundle folder. Safe to share between threads. `close` ends the processes that decode.

    Args:
        bundle: the folder of the edge bundle.
        num_threads: cores for one picture; None takes all.
        decoding: what one picture may take. The model tells no callers apart, so a half of the processes decodes at
            once.

    Raises:
        BundleError: the folder has no bundle, or a damaged one.
    """

    def __init__(
        self, bundle: str, limits: Limits, num_threads: int | None, decoding: DecodingLimits = DECODING
    ) -> None:
        self.encoder = Encoder.from_bundle(bundle, threads=num_threads or 0)
        self.card, self.limits = self.encoder.bundle.manifest.card, limits
        self.pipeline = Pipeline(self.encoder, allowed_local_media_path="", decoding=decoding)

    def close(self) -> None:
        self.pipeline.close()

    def check(self, tensors: Tensors) -> None:
        """Refuse a request that is wrong before anything decodes its pictures.

        Raises:
            InvalidInput: neither or both of image and pixel_values, too many pictures, patches of another width or
                number than the grids ask for.
            MediaError: a picture has no bytes.
        """
        check_ranks(tensors, VISION_INPUTS)
        given = [name for name in ("image", "pixel_values") if name in tensors]
        if len(given) != 1:
            raise InvalidInput(
                f"{'both' if given else 'neither'} of image and pixel_values given: send one of them", check="source"
            )
        grids = [name for name in ("image_grid_thw", "video_grid_thw") if name in tensors]
        if given == ["pixel_values"]:
            named = ("image_grid_thw", "video_grid_thw", "video_second_per_grid")
            self.check_pixels(tensors["pixel_values"], *map(tensors.get, named))
            return
        if grids:
            raise InvalidInput(
                f"{grids[0]} goes with pixel_values: leave it out, the pictures' files tell their sizes", check="grids"
            )
        if tensors["image"].size > self.limits.max_items:
            raise InvalidInput(
                f"image has {tensors['image'].size} pictures, {self.limits.max_items} are allowed", check="pictures"
            )
        for place, data in enumerate(tensors["image"]):
            if not data:
                raise MediaError(
                    f"image[{place}] is empty: send the bytes of a JPEG, PNG, WebP … file", check="no-bytes"
                )

    def check_pixels(
        self,
        pixel_values: NDArray[np.float32],
        image_grid_thw: NDArray[np.int64] | None,
        video_grid_thw: NDArray[np.int64] | None,
        seconds: NDArray[np.float32] | None = None,
    ) -> None:
        if self.card.tiles is not None:
            raise InvalidInput("pixel_values was sent, this model cuts tiles itself: send image", check="source")
        images, videos = check_items(image_grid_thw, video_grid_thw, self.card, self.limits)
        check_seconds(seconds, len(videos), self.card)
        rows = num_rows(images, self.card) + num_rows(videos, self.card)
        self.check_rows(rows)
        patches = sum(int(grid.prod(axis=1).sum()) for grid in (images, videos))
        expected = [patches, self.card.patch_width]
        if not rows or list(pixel_values.shape) != expected:
            raise InvalidInput(
                f"pixel_values has shape {list(pixel_values.shape)}, the grids ask for {expected}", check="patches"
            )

    def check_rows(self, rows: int) -> None:
        if rows > self.limits.max_prompt_tokens:
            raise InvalidInput(
                f"the pictures have {rows} rows, {self.limits.max_prompt_tokens} tokens are allowed: send smaller pictures",
                check="picture-rows",
            )

    def encode(self, tensors: Tensors, asker: Asker = PATIENT) -> Tensors:
        """The output tensors of a checked request, by the names of contract.tensors.VISION_OUTPUTS but vision_keys.

        Args:
            asker: who waits for them; the decoding ends when it leaves, and the tower does not begin.

        Raises:
            MediaError: a picture cannot be decoded within the limits, or is too large; or the asker has left.
            InvalidInput: the pictures together have more rows than a prompt may have, or pixel_values has values that
                no picture gives.
        """
        items = self.pictures(tensors["image"], asker) if "image" in tensors else self.patches(tensors)
        if asker.has_left:
            raise MediaError(LEFT)
        found = self.encoder.encode(items)
        outputs: Tensors = {
            "vision_embeddings": found.image_embeds.astype(np.float16),  # (N, H)
            "deepstack_embeddings": found.deepstack_embeds.astype(np.float16),  # (L, N, H)
            "encoder_fingerprint": np.array([self.card.encoder_fingerprint.encode()], np.object_),
        }
        for name, is_video in (("image_grid_thw", False), ("video_grid_thw", True)):
            if grids := [item.grid_thw for item in items if item.is_video == is_video]:
                outputs[name] = np.array(grids, np.int64)  # (k, 3)
        return outputs

    def pictures(self, files: NDArray[np.object_], asker: Asker) -> list[Item]:
        """Items of picture files. This decodes one by one, so that it refuses too many before it holds them."""
        items: list[Item] = []
        rows = 0
        for data in files:
            source = data.decode("ascii", "replace") if data.startswith(b"data:") else data
            content = [{"type": "image", "image": source}]
            items += self.pipeline.items([{"role": "user", "content": content}], len(files), asker)
            rows += items[-1].num_rows(self.card)
            self.check_rows(rows)
        return items

    def patches(self, tensors: Tensors) -> list[Item]:
        """Items of patches that the client made; the server does not use their timestamps."""
        image, items, start = self.encoder.bundle.manifest.image, list[Item](), 0
        patches = to_bytes(tensors["pixel_values"], image.mean, image.std)
        for name in ("image_grid_thw", "video_grid_thw"):
            for t, h, w in tensors.get(name, np.zeros((0, 3), np.int64)).tolist():
                end = start + t * h * w
                times = (0.0,) * t if name == "video_grid_thw" else ()
                items.append(Item(patches[start:end], (t, h, w), times))
                start = end
        return items
