"""The second bundled model: a small LLaVA-NeXT, whose pictures are cut into tiles."""
