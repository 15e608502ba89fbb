"""A plugin of pytest for `make sanitize`: the kernels' tests run on the libraries that the sanitizers watch."""

import os
from pathlib import Path

from edge_runtime.tower import kernels
from kernels.sanitize import VARIABLE

kernels.LIBRARIES = Path(os.environ[VARIABLE])
