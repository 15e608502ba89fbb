"""The items of the benchmark as grids of patches (t, h, w), the quick ones first."""

SIZES = {
    "256": (1, 16, 16),
    "512": (1, 32, 32),
    "768": (1, 48, 48),
    "video": (8, 16, 16),  # 16 frames of 256 x 256
    "1024": (1, 64, 64),
}
