"""Will a customer leave?"""

from churn.model import FEATURES, ChurnNet

__all__ = ["FEATURES", "ChurnNet"]
