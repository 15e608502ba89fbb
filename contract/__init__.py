"""What both machines agree on: tensors, bundle, fingerprint, limits, errors. numpy only; each number stands here once."""
