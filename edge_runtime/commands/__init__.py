"""The verbs of `python -m edge_runtime`: each takes arguments and returns a report that JSON can hold."""
