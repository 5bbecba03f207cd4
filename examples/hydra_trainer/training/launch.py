"""``cd training && torchrun --nproc-per-node=8 launch.py --config single_pair_test``"""

from __future__ import annotations

import argparse

from hydra import compose, initialize
from trainer import Trainer

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    with initialize(version_base=None, config_path="config"):
        Trainer(**compose(config_name=parser.parse_args().config)).run()
