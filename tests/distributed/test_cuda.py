"""The same on a GPU: NCCL with as many ranks as there are GPUs, at most two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
