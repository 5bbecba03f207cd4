from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors on a busy machine: two threads are ten times slower
os.environ.setdefault("PYTEST_OVERFIT_RAISE", "1")  # a mistake of ours ends the test, and is not one more note

pytest_plugins = ["pytester"]
