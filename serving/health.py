"""`python -m serving.health`: Docker's and Kubernetes' probes call `serving.triton.health` through it."""

import sys

from serving.triton.health import main

if __name__ == "__main__":
    sys.exit(main())
