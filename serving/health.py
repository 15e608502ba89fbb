"""`python -m serving.health`: the door of `serving.triton.health` for Docker's and Kubernetes' probes."""

import sys

from serving.triton.health import main

if __name__ == "__main__":
    sys.exit(main())
