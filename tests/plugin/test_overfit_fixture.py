"""``overfit(model, batch, loss)`` in tests that know nothing of configs."""

from __future__ import annotations

import pytest

PRELUDE = """
import pytest, torch, unittest
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
fast = lambda parameters: torch.optim.Adam(parameters, lr=0.01)

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))

def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])
"""


@pytest.fixture
def session(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder whose tests begin with the prelude: ``session.makepyfile`` after ``from prelude import *``."""
    pytester.makepyfile(prelude=PRELUDE)
    pytester.syspathinsert()
    return pytester


def test_one_line_proves_a_model(session: pytest.Pytester) -> None:
    """Green with margins in the summary; red with the missed criterion; the result is there for more asserts."""
    session.makepyfile(
        """
        from prelude import *

        def test_learns(overfit):
            result = overfit(net(), pair(), nn.CrossEntropyLoss(), optimizer=fast)
            assert result.record.steps < 200

        @pytest.mark.overfit(objective=0.05, max_steps=20)
        def test_cannot(overfit):
            overfit(net(), pair(), lambda model, batch: F.cross_entropy(model(batch[0] * 0), batch[1]), optimizer=fast)
        """
    )
    result = session.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * AssertionError: objective 1.*, allowed < 0.05: nothing reads 0, whose 6 samples differ*",
            "E * 2 of 6 criteria missed",
            "E * objective: objective 1.* (start *, best *), allowed < 0.05 for 5 steps in a row",
            "*- overfit: 1 of 2 memorised -*",
            "ok * test_one_line_proves_a_model.py::test_learns: * of 1000 steps in *; objective 0.0* < 0.01",
            "FAILED * test_one_line_proves_a_model.py::test_cannot: 20 of 20 steps*missed gradients, objective*",
        ]
    )
    assert not (session.path / "overfit_logs").exists()
    assert "calls.py" not in result.stdout.str()


def test_classes_parametrize_and_test_cases(session: pytest.Pytester) -> None:
    """The nearest marker wins keyword by keyword; a TestCase finds the call as an attribute."""
    session.makepyfile(
        """
        from prelude import *

        @pytest.mark.overfit(max_steps=300, objective=1e-9)
        class TestModels:
            @pytest.mark.overfit(objective=0.05)
            @pytest.mark.parametrize("width", [8, 16])
            def test_width(self, overfit, width):
                model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))
                result = overfit(model, pair(), F.cross_entropy, optimizer=fast)
                assert result.record.planned_steps == 300

        @pytest.mark.usefixtures("overfit")
        class TestOld(unittest.TestCase):
            def test_old_style(self):
                self.overfit(net(), pair(), F.cross_entropy, optimizer=fast, objective=0.05)

            @pytest.mark.overfit(objective=0.05, max_steps=2)
            def test_too_short(self):
                with self.assertRaisesRegex(AssertionError, "objective"):
                    self.overfit(net(), pair(), F.cross_entropy)
        """
    )
    session.runpytest_inprocess().assert_outcomes(passed=4)


CONFTEST = """
    from prelude import *

    @pytest.fixture
    def overfit_model():
        return net

    @pytest.fixture
    def overfit_batch():
        return dict(zip(("inputs", "labels"), pair()))

    @pytest.fixture
    def overfit_loss():
        return lambda model, batch: {
            "objective": F.cross_entropy(model(batch["inputs"]), batch["labels"]),
            "accuracy": (model(batch["inputs"]).argmax(-1) == batch["labels"]).float().mean(),
        }

    @pytest.fixture
    def overfit_optimizer():
        return fast
"""


def test_a_team_overrides_fixtures_once(session: pytest.Pytester) -> None:
    """What is not passed comes from them; overfit_result uses them too; a passed piece wins."""
    session.makeconftest(CONFTEST)
    session.makepyfile(
        """
        import pytest

        @pytest.mark.overfit(accuracy={"above": 0.99}, seeds=[0, 1])
        def test_all_of_it(overfit):
            assert len(overfit().runs) == 2

        @pytest.mark.overfit(max_steps=3)
        def test_result(overfit_result):
            assert not overfit_result.passed
            assert overfit_result.record.steps == 3
            assert overfit_result.finding("objective").observed.startswith("objective ")

        def test_slower(overfit):
            import torch
            with pytest.raises(AssertionError, match="objective"):
                overfit(optimizer=lambda p: torch.optim.SGD(p, lr=1e-5), max_steps=10)
        """
    )
    session.runpytest_inprocess().assert_outcomes(passed=3)


def test_a_step_of_the_team_is_the_step_that_runs(session: pytest.Pytester) -> None:
    """With its own optimizer and scheduler, which come back as they were."""
    session.makepyfile(
        """
        from prelude import *

        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)

        @pytest.fixture
        def overfit_step():
            def step(model, batch):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(batch[0]), batch[1])
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                return loss.item(), {"accuracy": 1.0}
            return step

        def test_learns(overfit):
            overfit(model, pair())
            assert not optimizer.state
            assert scheduler.last_epoch == 0 and optimizer.param_groups[0]["lr"] == 0.02

        def test_forgets_to_step(overfit):
            def step(model, batch):
                loss = F.cross_entropy(model(batch[0]), batch[1])
                loss.backward()
                return loss
            with pytest.raises(AssertionError, match="not in the optimizer"):
                overfit(model, pair(), step=step, max_steps=10)
        """
    )
    session.runpytest_inprocess().assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("overfit(net())", ["*overfit_batch: no batch was given", "*next: define `def overfit_batch()`*"]),
        ("overfit()", ["*overfit_model: no model was given"]),
        ("overfit('vggt.pt', pair())", ["*model: a str where a model is wanted"]),
        ("overfit(net(), 3)", ["*data: a int where data is wanted"]),
        ("overfit(net(), pair(), 3)", ["*loss: a int where a loss is wanted"]),
        ("overfit(net(), pair())", ["*loss: no loss was given, and Sequential cannot be called*", "*next: pass loss*"]),
        ("overfit(net(), pair(), F.cross_entropy, optimizer=3)", ["*optimizer: a int where an optimizer is wanted"]),
        (
            "overfit(net(), pair(), F.cross_entropy, objectve=0.1)",
            ["*argument objectve", "*did you mean 'objective'?*objective"],
        ),
        ("overfit(net(), pair(), F.cross_entropy, acuracy=0.1)", ["*the loss gives no term 'acuracy'", "*: objective"]),
        ("overfit(net(), pair(), F.cross_entropy, seeds=[])", ["*seeds*"]),
        (
            "overfit(net(), pair(), lambda m, b: m(b[0]).mean() - 9, objective={'below': 0.5, 'relative': True})",
            ["*objective starts at -*: a ratio to it means nothing"],
        ),
        (
            "overfit(net(), pair(), F.cross_entropy, unused=['pooler.*'])",
            ["*pattern 'pooler.[*]' matches no parameter*"],
        ),
        (
            "overfit(net, pair(), F.cross_entropy, optimizer=torch.optim.SGD(net().parameters()), seeds=[0, 1])",
            ["*optimizer: an optimizer beside a model factory"],
        ),
        ("overfit(net(), [], F.cross_entropy)", ["*"]),
    ],
)
def test_bad_input_is_one_clear_error(session: pytest.Pytester, line: str, says: list[str]) -> None:
    """What was seen, what is allowed, and none of our frames."""
    session.makepyfile(f"from prelude import *\n\ndef test_it(overfit):\n    {line}\n")
    result = session.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(says)


def test_errors_of_the_users_code_come_through(session: pytest.Pytester) -> None:
    """With their own traceback."""
    session.makepyfile(
        """
        from prelude import *

        def broken(model, batch):
            raise ZeroDivisionError("in the loss")

        def test_it(overfit):
            overfit(net(), pair(), broken)
        """
    )
    result = session.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*raise ZeroDivisionError*", "E * ZeroDivisionError: in the loss"])


def test_a_marker_without_config_is_not_taken_by_the_sessions_config(session: pytest.Pytester, tiny: object) -> None:
    """Beside a config of the ini file, marked tests still run their own model."""
    assert callable(tiny)
    tiny()
    session.makeini("[pytest]\noverfit_config = tiny.yaml\n")
    session.makepyfile(
        """
        from prelude import *

        @pytest.mark.overfit(objective=0.05)
        def test_own(overfit):
            overfit(net(), pair(), F.cross_entropy, optimizer=fast)
        """
    )
    session.runpytest_inprocess("-k", "own").assert_outcomes(passed=1, deselected=15)


def test_a_log_dir_gets_a_board_per_seed(session: pytest.Pytester) -> None:
    """Only where one was asked for."""
    session.makepyfile(
        """
        from prelude import *

        @pytest.mark.overfit(seeds=[0, 1], max_steps=5, objective=5.0, supervised=False)
        def test_own(overfit):
            overfit(net(), pair(), F.cross_entropy)
        """
    )
    result = session.runpytest_inprocess("--overfit-log-dir", "boards", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["tensorboard --logdir *boards*test_own"])
    (folder,) = (session.path / "boards").iterdir()
    assert len(list(folder.iterdir())) == 2
