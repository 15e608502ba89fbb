"""A picture or video with its rows, as they stand on this device and as they travel."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from contract.codecs import codec, int8
from contract.codecs.numbers import CodecNumbers
from contract.errors import BundleError
from contract.items import ItemRows, item_key
from contract.rows import RowMasks
from edge_runtime.row_rule import ALL, RowRule

Precision = Literal["fp16", "fp32", "int8", "int8c", "int4", "ecq", "klt"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WIRE_NAMES = {  # two tensors each, and the axis on which their rows stand
    "fp16": (("vision_embeddings", 0), ("deepstack_embeddings", 1)),
    "fp32": (("vision_embeddings_fp32", 0), ("deepstack_embeddings_fp32", 1)),
    "int8": (("vision_embeddings_q", 1), ("vision_scales", 1)),
    "int8c": (("vision_embeddings_q", 1), ("vision_scales", 1)),
    "int4": (("vision_embeddings_q4", 1), ("vision_scales", 1)),
    "ecq": (("vision_stream", 0), ("vision_scales", 1)),
    "klt": (("vision_stream", 0), ("vision_scales", 1)),  # scales (0, n), which do not travel
}


@dataclass(eq=False)
class EncodedItem:
    """A picture or video with the tower's rows.

    Attributes:
        is_video: whether it travels as a video.
        grid_thw: temporal patches, height and width, in patches.
        main, deepstack: float32 (n, H) and (L, n, H).
        wire_keys: the names of exactly these rows by `form`; a server has answered with them, or this device has hashed
            them.
        numbers: the numbers of the bundle's learned codecs; None where it has none.
        rule: which rows of a video travel.
        seconds: the time from one temporal patch of a video to the next, where the family's positions follow it.
    """

    is_video: bool
    grid_thw: tuple[int, int, int]
    main: NDArray[np.float32]
    deepstack: NDArray[np.float32]
    wire_keys: dict[tuple[str, bool], str] = field(default_factory=dict, repr=False)
    numbers: CodecNumbers | None = field(default=None, repr=False)
    rule: RowRule = ALL
    seconds: float | None = None
    _wire: tuple[Precision, tuple[NDArray[Any], NDArray[Any]]] | None = field(default=None, init=False, repr=False)
    _masks: dict[RowRule, RowMasks | None] = field(default_factory=dict, init=False, repr=False)

    def whole(self) -> "EncodedItem":
        """The same item with the rule that all rows travel."""
        return replace(self, rule=ALL)

    def masks(self, precision: Precision) -> RowMasks | None:
        """Which rows travel; None for all. In fp32 the rule copies only equal rows."""
        rule = self.rule.exact if precision == "fp32" else self.rule
        if rule not in self._masks:
            num_frames = self.grid_thw[0] if self.is_video else 1
            self._masks[rule] = rule.masks(self.main, self.deepstack, num_frames)
        return self._masks[rule]

    def form(self, precision: Precision) -> tuple[str, bool]:
        """What a name on a server depends on besides the rows: how they travel, and whether they are a video's."""
        masks = self.masks(precision)
        return (precision if masks is None else f"{precision} {self.rule}"), self.is_video

    def wire(self, precision: Precision) -> tuple[NDArray[Any], NDArray[Any]]:
        """The rows as they travel: (n, H) and (L, n, H) in fp16 or fp32, else a codec's values and its scales (1+L, n).

        n counts only the rows that travel.

        Raises:
            BundleError: the precision is a learned codec, and the bundle has no numbers.
        """
        if self._wire is None or self._wire[0] != precision:  # the hash and the upload share one conversion
            self._wire = precision, self._converted(precision)
        return self._wire[1]

    def _converted(self, precision: Precision) -> tuple[NDArray[Any], NDArray[Any]]:
        main, deepstack = self.main, self.deepstack
        if (masks := self.masks(precision)) is not None:
            sent = masks.is_sent.ravel()
            main, deepstack = main[sent], deepstack[:, sent]
        if precision == "int8":
            return int8.quantise(main, deepstack)
        if precision in codec.CODECS:
            if self.numbers is None:
                raise BundleError(f"{precision} needs codec numbers, which this bundle lacks: export it again")
            if precision not in self.numbers.names:
                raise BundleError(f"this bundle has no {precision}: python -m export.codec learns it")
            return codec.CODECS[precision].encode(main, deepstack, self.numbers)
        dtype = np.float16 if precision == "fp16" else np.float32
        return main.astype(dtype, copy=False), deepstack.astype(dtype, copy=False)

    def key(self, fingerprint: str, precision: Precision) -> str:
        """The name of the rows on a server; see contract.items."""
        form = self.form(precision)
        found = self.wire_keys.get(form)
        if found is None:
            where = ItemRows(self.is_video, self.grid_thw, slice(0, len(self.main)))
            arrays = self.wire(precision)
            masks = self.masks(precision)
            found = self.wire_keys[form] = item_key(
                fingerprint, where, *arrays, codec=self.codec(precision), masks=masks, seconds=self.seconds
            )
        return found

    def codec(self, precision: Precision) -> str:
        """The name and hash of a learned codec, as servers publish them; "" for floats and int8."""
        return self.numbers.names.get(precision, "") if self.numbers is not None else ""
