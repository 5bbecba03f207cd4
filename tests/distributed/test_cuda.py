"""The same on a GPU: NCCL with as many ranks as there are GPUs, at most two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pytest_overfit.api import run_subject
from pytest_overfit.run.place import Place
from pytest_overfit.run.subject import Subject
from pytest_overfit.settings.call_settings import settings_of_call
from tests.distributed.support import GREEN, SMALL, curve, torchrun

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
pytestmark = pytest.mark.skipif(not GPUS, reason="needs a CUDA GPU for NCCL")

ON_CUDA = """
def test_cuda(overfit):
    import torch.distributed as dist

    net, batch = made()
    result = overfit(net, batch, F.mse_loss, optimizer=adam, max_steps=300, device="cuda", defects=DEFECTS)
    assert result.record.device.startswith("cuda")
    assert "nccl" in dist.get_backend_config()
    assert all(p.device.type == "cpu" for p in net.parameters())
    written(result, "cuda")
"""


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_nccl(strategy: str, tmp_path: Path) -> None:
    """Every rank has a GPU of its own, and the model comes back to the CPU."""
    (tmp_path / "test_it.py").write_text(SMALL + ON_CUDA.replace("DEFECTS", str(strategy == "ddp")))
    setting = f"--overfit-set=overfit.distributed.strategy={strategy}"
    with torchrun(tmp_path, setting, ranks=min(2, GPUS)) as launch:
        code, output = launch.finish()
    assert code == GREEN, output[-3000:]
    assert curve(tmp_path, "cuda-0")[-1] < 0.01


@pytest.mark.skipif(GPUS < 2, reason="needs two GPUs to tell apart")
def test_the_gpu_of_a_worker_is_the_current_one(tmp_path: Path) -> None:
    """What a model moves with ``.cuda()`` lands where the run is; afterwards the first GPU is current again."""

    class Moving(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.zeros(1).cuda()

    settings = settings_of_call(None, None, {"device": "cuda", "max_steps": 20, "defects": False})
    subject = Subject(Moving(4, 1), (torch.randn(8, 4), torch.randn(8, 1)), torch.nn.functional.mse_loss)
    result = run_subject(subject, settings, place=Place(workers=2, worker=1, shared=tmp_path))
    assert result.record.device.startswith("cuda:1")
    assert torch.cuda.current_device() == 0
