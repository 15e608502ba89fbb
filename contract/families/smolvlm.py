"""SmolVLM: each tile's rows form a run, markers stand between the runs; a video's frames are tiles of one picture."""

from contract.families.internvl import LAYOUT, POSITIONS, card, positions, runs

__all__ = ["LAYOUT", "POSITIONS", "card", "positions", "runs"]
