"""Turns the arrays of one request, as the server got them, into a checked prompt, its sampling and its wishes.

This file finds everything that can be wrong with a request, before the server allocates anything for it, and names the
tensor, its value and the allowed one. Triton checks types and fixed sizes; a rank of 0, an empty tensor, a missing
tensor and an unknown JSON field all arrive.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from contract.card import ModelCard
from contract.codecs.numbers import CodecNumbers
from contract.embeddings import NAMES
from contract.errors import InvalidInput, shown
from contract.expansion import expand_pads
from contract.grids import check_items, item_rows, num_rows, runs
from contract.items import ItemTensors, is_pad
from contract.limits import Limits
from contract.prompt import Prompt, check_encoder, check_items_alone, check_prompt
from contract.row_counts import ROW_COUNTS, grids_or_rows
from contract.rows import MaskReader
from contract.sampling import Sampling
from contract.tasks import GENERATE, check_task
from contract.tensors import INPUTS, check_ranks
from contract.token_ids import max_prompt_tokens
from serving.requests.keys import Grid, Held, all_grids, held_items
from serving.requests.store import ReuseStore
from serving.requests.tokens import TextReader
from serving.requests.values import Tensors, flag, text, texts

MAX_TOKEN_BYTES = 64  # text for each token that the prompt may have; the parser refuses more unread
SAMPLING_NAMES = frozenset(field.name for field in fields(Sampling))


@dataclass(frozen=True)
class ParsedRequest:
    """A request that passed every check. echo goes before the answer; it is empty unless the client asks for it. task is
    one of contract.tasks.TASKS."""

    prompt: Prompt
    sampling: Sampling
    echo: str
    is_stream: bool
    wants_finish_reason: bool
    wants_num_input_tokens: bool
    wants_num_output_tokens: bool
    task: str = GENERATE


class RequestParser:
    """Knows the model that requests are checked against. Holds no state of a request."""

    def __init__(
        self,
        card: ModelCard,
        limits: Limits,
        tokenizer: Tokenizer,
        store: ReuseStore,
        numbers: CodecNumbers | None = None,
        tasks: Collection[str] = (GENERATE,),
    ) -> None:
        self._tasks = tasks
        self._card, self._limits, self._tokenizer, self._store = card, limits, tokenizer, store
        self._numbers = numbers
        self._max_tokens = max_prompt_tokens(card, limits)
        self._reader = TextReader(tokenizer, self._max_tokens)

    def parse(
        self, tensors: Tensors, parameters: Mapping[str, Any], is_wanted: Callable[[], bool] = lambda: True
    ) -> ParsedRequest:
        """Check one request.

        Args:
            tensors: what the client sent, by the names of contract.tensors.INPUTS; BYTES as object arrays of bytes.
            parameters: the request parameters; sampling names are allowed here as well (plain JSON fields).
            is_wanted: asked between the pieces of a long text; False ends the reading.

        Raises:
            InvalidInput: the message names the tensor or parameter, its value and the allowed one.
            NotFound: a key names an item that the store does not hold.
            Unavailable: is_wanted gave False.
        """
        check_ranks(tensors, INPUTS)
        task = check_task(text(tensors, "task"), self._tasks)
        sampling = self._sampling(text(tensors, "sampling_parameters"), parameters, task)
        self._check_length(tensors.get("text_input"))
        prompt_text = text(tensors, "text_input")
        prompt = self._prompt(tensors, prompt_text, sampling, is_wanted)
        echo = ""
        if not flag(tensors, "exclude_input_in_output", True):
            ids = prompt.input_ids.tolist()
            echo = prompt_text or self._tokenizer.decode(ids, skip_special_tokens=False)
        return ParsedRequest(
            prompt,
            sampling,
            echo,
            is_stream=flag(tensors, "stream", True),
            wants_finish_reason=flag(tensors, "return_finish_reason", False),
            wants_num_input_tokens=flag(tensors, "return_num_input_tokens", False),
            wants_num_output_tokens=flag(tensors, "return_num_output_tokens", False),
            task=task,
        )

    def _prompt(
        self, tensors: Tensors, prompt_text: str | None, sampling: Sampling, is_wanted: Callable[[], bool]
    ) -> Prompt:
        fingerprint, input_ids = text(tensors, "encoder_fingerprint"), tensors.get("input_ids")
        check_encoder(fingerprint, self._card)  # first: with another checkpoint's bundle any tensor may be wrong
        images, videos = self._grids(tensors)
        held: Held = ()
        if keys := texts(tensors, "vision_keys"):
            held = held_items(keys, len(images) + len(videos), self._store)
        sent = {name: tensors[name] for name in NAMES if name in tensors}
        if sampling.max_tokens == 0:
            self._check_keeping(len(held) or len(images) + len(videos))
            if input_ids is None and prompt_text is None:
                return check_items_alone(
                    self._card,
                    self._limits,
                    embeddings=sent,
                    image_grid_thw=images,
                    video_grid_thw=videos,
                    video_second_per_grid=tensors.get("video_second_per_grid"),
                    encoder_fingerprint=fingerprint,
                    held=held,
                    numbers=self._numbers,
                )
        ids = self._ids(input_ids, prompt_text, is_wanted)
        if held:
            images, videos = self._all_grids(ids, held, images, videos, sent, is_text=input_ids is None)
        if input_ids is None:
            rows = num_rows(images, self._card) + num_rows(videos, self._card)
            if rows > self._max_tokens:
                raise InvalidInput(
                    f"the grids ask for {rows} rows, {self._max_tokens} tokens are allowed",
                    check="text-rows",
                )
            ids = expand_pads(ids, images, videos, self._card)
        return check_prompt(
            self._card,
            self._limits,
            input_ids=ids,
            embeddings=sent,
            image_grid_thw=images,
            video_grid_thw=videos,
            video_second_per_grid=tensors.get("video_second_per_grid"),
            encoder_fingerprint=fingerprint,
            attention_mask=tensors.get("attention_mask"),
            vision_token_positions=tensors.get("vision_token_positions"),
            held=held,
            numbers=self._numbers,
            is_whole=input_ids is None,
        )

    def _grids(self, tensors: Tensors) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Grids of the pictures and of the videos that the client sent; this judges the number of all items first."""
        if (keys := tensors.get("vision_keys")) is not None and keys.size > self._limits.max_items:
            raise InvalidInput(
                f"vision_keys has {keys.size} entries, {self._limits.max_items} are allowed", check="max-keys"
            )
        images, videos = (
            grids_or_rows(name, tensors.get(name), tensors.get(count), self._card) for name, count in ROW_COUNTS.items()
        )
        return check_items(images, videos, self._card, self._limits)

    def _all_grids(
        self,
        ids: NDArray[np.int64],
        held: Held,
        images: NDArray[np.int64],
        videos: NDArray[np.int64],
        sent: Tensors,
        *,
        is_text: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Grids of sent and held items together; a text has one pad a run, ids one a kept row."""
        card = self._card
        reader = MaskReader(sent, num_rows(images, card) + num_rows(videos, card), card)

        def num_pads(is_video: bool, grid: Grid, item: ItemTensors | None) -> int:
            masks = reader.next(is_video, grid) if item is None else item.masks
            if is_text:
                return runs(grid, card)[0]
            return item_rows(grid, card) if masks is None else masks.num_kept

        pads = ids[is_pad(ids, card)]
        return all_grids(pads == card.video_token_id, held, images, videos, num_pads)

    def _check_keeping(self, num_items: int) -> None:
        if not num_items:
            raise InvalidInput(
                "sampling_parameters.max_tokens is 0, which only keeps items, and there are none", check="keep-items"
            )
        if not self._limits.max_reuse_bytes:
            raise InvalidInput(
                "sampling_parameters.max_tokens is 0, which only keeps items, and this server keeps none: send 1 or more",
                check="keep-off",
            )

    def _sampling(self, json_text: str | None, parameters: Mapping[str, Any], task: str) -> Sampling:
        if unknown := sorted(parameters.keys() - SAMPLING_NAMES):
            raise InvalidInput(
                f"{shown(unknown[0])} is neither an input nor a parameter; inputs are {', '.join(spec.name for spec in INPUTS)}; "
                f"parameters are {', '.join(sorted(SAMPLING_NAMES))}",
                check="parameter",
            )
        sampling = Sampling.from_dict(dict(parameters), None if json_text is None else Sampling.from_json(json_text))
        if task == GENERATE and sampling.max_tokens > self._limits.max_output_tokens:
            raise InvalidInput(
                f"sampling_parameters.max_tokens is {sampling.max_tokens}, up to {self._limits.max_output_tokens} "
                "is allowed",
                check="max-tokens",
            )
        return sampling

    def _check_length(self, values: NDArray[Any] | None) -> None:
        """Refuse a text unread when it is so long that no tokenizer makes few enough tokens of it."""
        size = 0 if values is None else max(len(value) for value in values)
        if size > (allowed := MAX_TOKEN_BYTES * self._max_tokens):
            raise InvalidInput(
                f"text_input has {size} bytes, {allowed} are allowed for {self._max_tokens} tokens", check="text-length"
            )

    def _ids(
        self, input_ids: NDArray[np.int64] | None, prompt_text: str | None, is_wanted: Callable[[], bool]
    ) -> NDArray[np.int64]:
        """The prompt's tokens, int64 (S,): those that the client sent, or those of its text."""
        if (input_ids is None) == (prompt_text is None):
            given = "neither" if input_ids is None else "both"
            raise InvalidInput(f"{given} of input_ids and text_input given: send exactly one of them", check="prompt")
        if input_ids is not None:
            return input_ids
        assert prompt_text is not None  # for mypy: just checked
        return self._reader.ids(prompt_text, is_wanted)
