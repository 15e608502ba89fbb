"""The verbs of `python -m edge_runtime`: arguments in, a JSON-ready report out."""
