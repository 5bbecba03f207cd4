"""The device of a run, and its threads."""

from __future__ import annotations

import re

import pytest
import torch

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.device import choose_device, choose_threads, describe_device, peak_mib


def test_a_device_that_is_not_there_is_an_error() -> None:
    """The message counts what there is."""
    with pytest.raises(OverfitError, match=r"device 'cuda:99' is not there"):
        choose_device("cuda:99")


def test_a_word_that_is_no_device_is_an_error() -> None:
    """A typo lists what is allowed."""
    with pytest.raises(OverfitError, match="allowed: auto, cpu, cuda"):
        choose_device("gpu0")


def test_available_without_a_device_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """is_available() can be True with no device behind it; counting decides."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    choice = choose_device("auto")
    if choice.device.type != "cpu":
        pytest.skip("this machine has another accelerator")
    assert choice.note == "no GPU used (torch.cuda.is_available() is True, device_count() is 0)"
    with pytest.raises(OverfitError, match="a GPU is required"):
        choose_device("cpu", require_gpu=True)


def test_asked_for_threads_are_taken_and_auto_is_at_least_one() -> None:
    """A busy machine gives one thread, never none."""
    assert choose_threads(3) == 3
    assert choose_threads("auto", workers=1000) == 1


def test_the_process_has_a_peak() -> None:
    """Memory is reported in MiB on the CPU too."""
    assert describe_device(torch.device("cpu")) == "cpu"
    peak = peak_mib(torch.device("cpu"))
    assert peak is None or 10 < peak < 1e6


@pytest.mark.parametrize("counts", [{"cuda": 0}, {"cuda": 0, "mps": 1}])
@pytest.mark.parametrize("require_gpu", [False, True])
def test_the_advice_for_a_device_that_is_not_there_works(
    monkeypatch: pytest.MonkeyPatch, counts: dict[str, int], *, require_gpu: bool
) -> None:
    """What is told to be taken is there, and enough where a GPU is required."""
    monkeypatch.setattr("pytest_overfit.run.device.accelerators", lambda: counts)
    with pytest.raises(OverfitError) as raised:
        choose_device("cuda", require_gpu=require_gpu)
    told = re.search(r"--overfit-device=(\w+) (?:takes|trains)", str(raised.value))
    assert (told is None) == (require_gpu and not any(counts.values()))
    if told is not None:
        assert choose_device(told[1], require_gpu=require_gpu).device.type == ("mps" if any(counts.values()) else "cpu")
    else:
        assert "run on a GPU machine" in str(raised.value)
        assert "allowed: auto" not in str(raised.value)
