"""For all tests: one compute thread. On a busy machine of few cores several make a small model wait for itself."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
