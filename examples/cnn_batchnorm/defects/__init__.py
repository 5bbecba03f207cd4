"""Which defect does a photograph of a surface show?"""

from defects.loss import classification_terms
from defects.model import CLASSES, DefectNet

__all__ = ["CLASSES", "DefectNet", "classification_terms"]
