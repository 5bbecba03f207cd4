"""What a run is told of two views: the probe of its targets, predictions against ground truth, pictures."""

from __future__ import annotations

from pytest_overfit.run.subject import Application
from pytest_overfit.two_view.metrics import compare_predictions, confidence_of
from pytest_overfit.two_view.sample_pictures import take_pictures
from pytest_overfit.two_view.target_probe import probe_targets

TWO_VIEW = Application(probe=probe_targets, compare=compare_predictions, numbers=confidence_of, pictures=take_pictures)
