"""One pass of the model over many sequences: the next token of each, and a bounded piece of prompts.

One row holds all tokens, so that they share every matrix product and nothing is padded.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from transformers.cache_utils import Cache

from contract.limits import Limits
from contract.prompt import check_prompt
from contract.sampling import Sampling
from contract.tasks import EMBED, GENERATE
from serving.transformers_engine.checkpoint import LanguageModel
from serving.transformers_engine.sequence import Sequence


@dataclass(frozen=True)
class Piece:
    """Tokens start to end of a sequence that has cached those before: a chunk of its prompt, or its next token."""

    sequence: Sequence
    start: int
    end: int

    @property
    def num_tokens(self) -> int:
        return self.end - self.start

    @property
    def cache(self) -> Cache:
        return self.sequence.cache

    @cached_property
    def mask(self) -> torch.Tensor | None:
        """Causal with an offset. None for one token, and from the start of a prompt, where sdpa's own rule holds."""
        if self.num_tokens == 1 or not self.start:
            return None
        ones = torch.ones((self.num_tokens, self.end), dtype=torch.bool, device=self.sequence.device)
        return ones.tril(self.start)[None, None]  # (1, 1, n, past + n)

    def undo(self) -> None:
        """Forget what a failed pass left in some of the layers."""
        for layer in self.cache.layers:
            layer.crop(self.start - layer.get_seq_length())


def plan(sequences: Iterable[Sequence], max_prefill_tokens: int) -> list[Piece]:
    """The pieces of one step. All sequences that answer go on; prompts share the rest in order of arrival."""
    pieces, room = [], max_prefill_tokens
    for sequence in sequences:
        length = sequence.num_known - sequence.num_cached
        if not sequence.num_answered:
            length = min(length, room)
            room -= length
        if length:
            pieces.append(Piece(sequence, sequence.num_cached, sequence.num_cached + length))
    return pieces


@torch.inference_mode()
def forward(model: LanguageModel, pieces: list[Piece]) -> list[torch.Tensor]:
    """What stands behind the last token of each piece: logits (V,), or the state (H,) where an embedding is wanted.
    Caches grow; the caller sets `num_cached`."""
    states = _states(model, pieces)  # (pieces, H)
    found = list(states)
    places = [place for place, piece in enumerate(pieces) if piece.sequence.task != EMBED]
    if places and model.head is not None:
        logits = model.head(states if len(places) == len(pieces) else states[places])  # (places, V)
        for place, row in zip(places, logits, strict=True):
            found[place] = row
    return found


def _states(model: LanguageModel, pieces: list[Piece]) -> torch.Tensor:
    """The state (pieces, H) of the last token of each piece."""
    parts = [(piece.sequence, slice(piece.start, piece.end)) for piece in pieces]
    ids = np.concatenate([s.ids[part] for s, part in parts])  # (T,)
    positions = np.concatenate([s.positions[:, part] for s, part in parts], axis=1)  # (axes, T)
    visual = np.concatenate([s.is_visual[part] for s, part in parts])  # (T,)
    embeds = model.decoder.embed_tokens(torch.from_numpy(ids).to(model.device))  # (T, H)
    deepstack = None
    is_visual = torch.from_numpy(visual).to(model.device)
    if visual.any():
        rows = [(s, s.rows(part)) for s, part in parts if s.is_visual[part].any()]
        embeds[is_visual] = torch.cat([s.main[part] for s, part in rows])
        deepstack = torch.cat([s.deepstack[:, part] for s, part in rows], dim=1)  # (L, rows, H)
    placed = torch.from_numpy(positions).to(model.device)
    hidden = model.decoder(
        inputs_embeds=embeds[None],  # (1, T, H)
        use_cache=False,  # the row needs none: each piece brings its own
        pieces=pieces,
        **model.family.inputs(placed, is_visual, deepstack),
    ).last_hidden_state[0]  # (T, H)
    ends = np.cumsum([piece.num_tokens for piece in pieces]) - 1
    states: torch.Tensor = hidden[torch.from_numpy(ends).to(model.device)]
    return states


def warm_up(model: LanguageModel) -> None:
    """Run a first pass, which loads and allocates, so that no client waits for it."""
    prompt = check_prompt(model.card, Limits(), input_ids=np.zeros(8, np.int64))
    loop = asyncio.new_event_loop()
    task = EMBED if model.head is None else GENERATE
    sequence = Sequence(model, prompt, Sampling(max_tokens=1), loop, task=task)
    sequence.begin()
    forward(model, [Piece(sequence, 0, 8)])
    loop.close()
