"""What a call asks for by keyword and a config by its keys: validation, schedules, objects of other libraries."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig

CALLS = """
    import pytest, torch
    from torch import nn
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(6, 4, generator=generator), torch.randn(6, 2, generator=generator)
    fast = lambda parameters: torch.optim.Adam(parameters, lr=0.01)

    def net():
        return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))

    @pytest.mark.overfit(train_val=True, freeze=["0"], clip_grad_norm=1.0)
    def test_keywords(overfit):
        result = overfit(net(), batch, F.mse_loss, optimizer=fast, val_data=batch, schedule=lambda at: 0.02 - 0.01 * at)
        record = result.record
        assert result.finding("train_val").passed
        assert record.val_steps[0] == 1
        assert record.learning_rate[0] == 0.02 > record.learning_rate[1]
        assert [p.name for p in record.parameters if not p.trainable] == ["0.weight", "0.bias"]

    @pytest.mark.overfit(max_steps=3)
    @pytest.mark.parametrize("asked", [dict(schedule=0.1), dict(val_data=3)])
    def test_mistakes(overfit, asked):
        with pytest.raises(pytest.fail.Exception, match="where (a schedule is|data is) wanted"):
            overfit(net(), batch, F.mse_loss, **asked)
"""


def test_a_call_validates_schedules_freezes_and_clips(pytester: pytest.Pytester) -> None:
    """By keyword, of the marker and of the call; what is neither data nor a schedule is told."""
    pytester.makepyfile(CALLS)
    pytester.runpytest_inprocess().assert_outcomes(passed=3)


def test_a_config_has_keys_for_what_a_call_is_passed(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Beside a config they are an error."""
    tiny()
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.overfit(config="tiny.yaml")
        def test_beside(overfit):
            with pytest.raises(pytest.fail.Exception, match="settings beside a config: schedule"):
                overfit(schedule=lambda at: 0.1)
        """
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_lightning_module_is_trained_under_a_config(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """It comes from the fixture, and brings its own step, loss and optimizer."""
    pytest.importorskip("pytorch_lightning")
    tiny(
        replace=(
            (
                "  threads: 1\n",
                "  threads: 1\n  criteria: {camera: false, depth: false, prediction: false, objective: 0.02}\n",
            ),
        )
    )
    pytester.makeconftest(
        """
        import pytest, torch
        from pytorch_lightning import LightningModule
        from torch.nn import functional as F
        from tests.support.tiny import Memoriser

        class Module(LightningModule):
            def __init__(self):
                super().__init__()
                self.inner = Memoriser(42, 56)

            def training_step(self, batch, index):
                said = self.inner(images=batch["images"])
                depth = (said["depth"].squeeze(-1) - batch["depths"]) * batch["point_masks"]
                return depth.abs().mean() + 0.001 * (said["pose_enc"].square().mean() + said["depth_conf"].mean())

            def configure_optimizers(self):
                return torch.optim.AdamW(self.parameters(), lr=0.05, weight_decay=0.0)

        @pytest.fixture
        def overfit_model():
            return Module()
        """
    )
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-rs")
    result.stdout.fnmatch_lines(["*note: the loss, the step and the optimizer are those of Module, not the config's"])
    result.stdout.fnmatch_lines(["ok * run *", "ok * objective *"])


def test_a_config_without_a_validation_split_is_green(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """There is nothing to compare with, and nobody asked for it."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--overfit-set", "data.val=null")
    result.assert_outcomes(passed=14)


def test_a_pattern_of_ours_that_freezes_nothing_fails_the_config(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Before anything is trained, under the name of the key that was set."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--overfit-set", "overfit.freeze=nope")
    result.assert_outcomes(failed=1, passed=2, skipped=12)
    result.stdout.fnmatch_lines(["*where: overfit.freeze*"])


def test_a_validation_batch_of_the_fixtures(pytester: pytest.Pytester) -> None:
    """It is used without a config too."""
    pytester.makepyfile(
        """
        import pytest, torch
        from torch import nn

        @pytest.fixture
        def overfit_val_batch():
            return torch.ones(3, 2), torch.zeros(3, 1)

        @pytest.mark.overfit(train_val=True, objective=100.0, supervised=False, diagnose=False)
        def test_learns(overfit):
            overfit(nn.Linear(2, 1), (torch.ones(3, 2), torch.zeros(3, 1)), nn.MSELoss())
        """
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
