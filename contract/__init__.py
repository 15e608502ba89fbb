"""What both machines agree on: tensors, bundle, fingerprint, limits, errors. Each number stands here once.

The package needs numpy and the standard library only.
"""
