from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors on a busy machine: two threads are ten times slower

pytest_plugins = ["pytester"]
