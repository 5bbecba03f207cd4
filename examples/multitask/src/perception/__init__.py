"""Free space and speed from one image."""

from perception.model import PerceptionNet
from perception.trainer import Trainer

__all__ = ["PerceptionNet", "Trainer"]
