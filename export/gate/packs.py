"""The grids on which the gate proves a bundle, and the pixels for them.

A pack is what one call of the graph gets: pictures and videos, one after another. The list covers what broke other
exports: one row of merge blocks, odd ratios, sides beyond the position table, videos, groups of frames that do not
divide evenly, and mixed packs in both orders. What a grid proves does not grow with its area, so these are small. A big
tower has no time for the large ones. The gate then runs two of them as far as the first deepstack level or, without
one, through a quarter of the blocks: that is through everything that depends on the grid.
"""

from itertools import accumulate, takewhile

import numpy as np
from numpy.typing import NDArray

from export.graph.tower import Tower

Grid = tuple[int, int, int]
Pack = tuple[Grid, ...]

ALWAYS: tuple[Pack, ...] = (
    ((1, 2, 2),),
    ((1, 2, 4),),
    ((1, 4, 2),),
    ((1, 4, 4),),
    ((1, 6, 10),),
    ((1, 10, 6),),
    ((1, 16, 16),),
    ((1, 4, 30),),
    ((1, 30, 4),),
    ((1, 2, 64),),
    ((1, 64, 2),),
    ((1, 50, 4),),
    ((1, 22, 10),),
    ((2, 4, 4),),
    ((3, 6, 4),),
    ((4, 4, 6),),
    ((5, 2, 8),),
    ((6, 6, 4),),
    ((7, 4, 6),),
    ((8, 2, 6),),
    ((1, 8, 12), (1, 4, 6)),
    ((1, 8, 8), (1, 8, 8)),
    ((2, 8, 8), (1, 6, 6), (1, 2, 4)),
    ((1, 2, 4), (3, 6, 6), (1, 10, 14), (2, 4, 12)),
)
SPLIT: Pack = ((4, 12, 22),)  # 264 patches a frame: the graph takes three frames, then one
# Numbers of tiles, for towers of one size. A tile of a big tower costs what a large pack does.
TILES: tuple[tuple[int, ...], ...] = ((1,), (2,), (3,), (1, 1), (1, 2), (2, 1))
MORE_TILES: tuple[tuple[int, ...], ...] = ((4,), (5,), (3, 1, 2), (1, 5), (5, 1), (7,), (13,))
LARGEST: Pack = ((1, 96, 64),)
# The cheapest first; packs_for takes them while they fit the budget.
LARGE: tuple[Pack, ...] = (
    ((1, 32, 24),),
    SPLIT,
    ((8, 16, 16),),
    ((2, 24, 40),),
    ((1, 50, 38),),
    ((1, 48, 48),),
    ((5, 32, 32), (1, 26, 54)),
    ((1, 64, 64),),
    ((8, 24, 24),),
    LARGEST,
)
# All of LARGE, or of MORE_TILES, may cost this together; ALWAYS costs 1.8e12 with the tower of a 2B model: seconds on any
# machine.
BUDGET_FLOP = 1.2e12


def name(pack: Pack) -> str:
    return " + ".join("x".join(map(str, grid)) for grid in pack)


def flop(tower: Tower, pack: Pack, num_blocks: int | None = None) -> float:
    """Multiplications and additions of one pass, in matrix products and attention; `num_blocks` counts only the first
    blocks, None all."""
    hidden, merged = tower.hidden_size, tower.merged_size
    depth = tower.depth if num_blocks is None else num_blocks
    patches = sum(t * h * w for t, h, w in pack)
    block = 2 * patches * (4 * hidden**2 + 2 * hidden * tower.intermediate_size)
    block += sum(4 * t * (h * w) ** 2 * hidden for t, h, w in pack)
    merger = 2 * patches / tower.merge_size**2 * merged * (merged + tower.out_hidden_size)
    num_mergers = 1 + sum(tap < depth for tap in tower.taps)
    return float(2 * patches * tower.patch_width * hidden + depth * block + num_mergers * merger)


def packs_for(tower: Tower) -> tuple[Pack, ...]:
    """All packs of ALWAYS (sides in steps of merge_size), and as many of LARGE as the budget allows. A tower of one
    size gets those of TILES and MORE_TILES."""
    if (side := tower.fixed_side) is not None:
        always, large = (
            tuple(tuple((tiles, side, side) for tiles in pack) for pack in packs) for packs in (TILES, MORE_TILES)
        )
    else:
        always, large = (tuple(_in_steps(tower, pack) for pack in packs) for packs in (ALWAYS, LARGE))
    return always + _within_budget(tower, large)


def _within_budget(tower: Tower, packs: tuple[Pack, ...]) -> tuple[Pack, ...]:
    """The first packs that together cost no more than BUDGET_FLOP."""
    costs = accumulate(flop(tower, pack) for pack in packs)
    return tuple(pack for pack, _ in takewhile(lambda priced: priced[1] <= BUDGET_FLOP, zip(packs, costs, strict=True)))


def first_level_packs_for(tower: Tower) -> tuple[Pack, ...]:
    """The packs that `packs_for` has no room for: the gate runs them as far as the first deepstack level, or through a
    quarter of the blocks."""
    if tower.fixed_side is not None:
        return ()
    whole, wanted = packs_for(tower), [_in_steps(tower, pack) for pack in (SPLIT, LARGEST)]
    return tuple(pack for pack in wanted if pack not in whole)


def _in_steps(tower: Tower, pack: Pack) -> Pack:
    step = tower.merge_size
    return tuple((t, h // 2 * step, w // 2 * step) for t, h, w in pack)


def pixels(tower: Tower, pack: Pack, seed: int) -> NDArray[np.uint8]:
    """uint8 (num_patches, patch_width): coarse and fine noise and a colour per patch.

    The two slices of a still picture are equal, as preprocessing makes them. A grid of one frame is a still, or, at
    every other place of a pack, a video of two frames. In a video every third patch stands still.
    """
    rng = np.random.default_rng(seed)
    parts, side = [], tower.patch_size
    for place, (t, h, w) in enumerate(pack):
        shape = (t * h * w, 3, tower.temporal_patch_size)
        cells = -(-side // 4)
        coarse = rng.standard_normal((*shape, cells, cells), dtype=np.float32).repeat(4, -1).repeat(4, -2)
        values = 0.4 * coarse[..., :side, :side]
        values += 0.15 * rng.standard_normal((*shape, side, side), dtype=np.float32)
        values += 0.4 * rng.standard_normal((t * h * w, 3, 1, 1, 1), dtype=np.float32)
        unmoved = slice(None, None, 1 if t == 1 and place % 2 == 0 else 3)
        values[unmoved] = values[unmoved, :, :1]
        levels = np.rint(127.5 * (values + 1)).clip(0, 255).astype(np.uint8)
        parts.append(levels.reshape(t * h * w, -1))
    return np.concatenate(parts)
