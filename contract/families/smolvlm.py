"""SmolVLM: rows of a tile in a run of their own, markers between them; frames of a video are tiles of one picture."""

from contract.families.internvl import LAYOUT, POSITIONS, card, positions, runs

__all__ = ["LAYOUT", "POSITIONS", "card", "positions", "runs"]
