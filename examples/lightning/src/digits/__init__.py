"""Digits out of small pictures."""

from digits.data import DigitsData
from digits.module import Digits, ManualDigits

__all__ = ["Digits", "DigitsData", "ManualDigits"]
