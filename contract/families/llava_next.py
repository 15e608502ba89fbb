"""LLaVA-NeXT: LLaVA's card over the whole picture and the tiles of a pinpoint, unpadded, a newline behind each row."""

from contract.families.llava import LAYOUT, POSITIONS, card, positions, runs

__all__ = ["LAYOUT", "POSITIONS", "card", "positions", "runs"]
