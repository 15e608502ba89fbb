"""The Triton model repository's templates, and what their model.py files share."""
