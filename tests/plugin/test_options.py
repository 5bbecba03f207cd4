"""Every option and its ini twin."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig
from tests.support.sessions import read_scalars


def test_set_overrides_a_key(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """--overfit-set reaches the run."""
    tiny()
    result = pytester.runpytest_inprocess(
        "--overfit-config", "tiny.yaml", "-k", "objective", "--overfit-set", "overfit.budget.max_steps=7"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*step 7 of 7*"])


def test_ini_options_stand_in_for_the_command_line(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Configs of the ini file run beside the tests; its overrides apply, and the command line wins over them."""
    tiny()
    pytester.makeini(
        """
        [pytest]
        overfit_config = tiny.yaml
        overfit_set = overfit.budget.max_steps=9
        overfit_device = cpu
        overfit_log_dir = boards
        """
    )
    pytester.makepyfile(test_own="def test_own(): pass")
    result = pytester.runpytest_inprocess("-k", "objective or own")
    result.assert_outcomes(passed=1, failed=1, deselected=14)
    result.stdout.fnmatch_lines(["*step 9 of 9*", "tensorboard --logdir *boards/tiny"])
    result = pytester.runpytest_inprocess("-k", "objective", "--overfit-set", "overfit.budget.max_steps=5")
    result.stdout.fnmatch_lines(["*step 5 of 5*"])


@pytest.mark.parametrize(
    ("ini", "file", "option", "steps"),
    [(9, None, None, 9), (9, 8, None, 8), (None, 8, None, 8), (9, 8, 7, 7), (None, None, 7, 7)],
)
def test_max_steps_on_every_rung(
    pytester: pytest.Pytester, tiny: TinyConfig, ini: int | None, file: int | None, option: int | None, steps: int
) -> None:
    """Ini file below the config, the config below the command line."""
    tiny(replace=(("threads: 1", f"threads: 1\n  budget: {{max_steps: {file}}}"),) if file else ())
    if ini:
        pytester.makeini(f"[pytest]\noverfit_max_steps = {ini}\n")
    args = ["--overfit-config", "tiny.yaml", "-k", "objective", *([f"--overfit-max-steps={option}"] if option else [])]
    pytester.runpytest_inprocess(*args).stdout.fnmatch_lines([f"*step {steps} of {steps}*"])


@pytest.mark.parametrize("how", ["option", "ini"])
def test_seconds_and_seeds_reach_the_settings(pytester: pytest.Pytester, tiny: TinyConfig, how: str) -> None:
    """Those of a config, and those of a marked test."""
    tiny()
    given = {"max-seconds": "2.5", "seeds": "0, 2", "device": "cpu"}
    if how == "ini":
        pytester.makeini("\n".join(["[pytest]", *(f"overfit_{n.replace('-', '_')} = {v}" for n, v in given.items())]))
    pytester.makepyfile(
        """
        import pytest
        from pytest_overfit.plugin.requester import layers_of, requester_of
        from pytest_overfit.settings.ladder import resolve_settings

        def seen(settings):
            return settings.budget.max_seconds, settings.seeds, settings.device

        @pytest.mark.overfit(config="tiny.yaml")
        def test_config(overfit_config):
            assert seen(overfit_config.overfit) == (2.5, (0, 2), "cpu")

        @pytest.mark.overfit(device="mps")
        def test_any(request):
            asks = requester_of(request)
            layers = layers_of(asks.session.options, asks.markers)
            assert seen(resolve_settings(layers, where="").settings) == (2.5, (0, 2), "mps")
            pytest.skip("nothing to run")
        """
    )
    args = [f"--overfit-{name}={value}" for name, value in given.items()] if how == "option" else []
    pytester.runpytest_inprocess(*args).assert_outcomes(passed=1, skipped=1)


def test_the_log_dir_of_the_ini_file_is_below_the_config(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """It is relative to the ini file; a quote in its name is no quote of an override."""
    tiny("own.yaml", replace=(("overfit:", "logging: {log_dir: own}\noverfit:"),))
    tiny()
    pytester.makeini("[pytest]\noverfit_log_dir = it's {ini}\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.overfit(config="own.yaml")
        def test_own(overfit_config):
            assert overfit_config.logging.log_dir.name == "own"

        @pytest.mark.overfit(config="tiny.yaml")
        def test_tiny(overfit_config, request):
            assert overfit_config.logging.log_dir == request.config.rootpath / "it's {ini}"
        """
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


@pytest.mark.parametrize("how", ["option", "ini", "config"])
def test_a_required_gpu_that_is_missing_fails(pytester: pytest.Pytester, tiny: TinyConfig, how: str) -> None:
    """One item is red and says why; the other is not judged."""
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count():
        pytest.skip("this machine has a GPU")
    tiny(replace=(("threads: 1", "threads: 1\n  require_gpu: true"),) if how == "config" else ())
    if how == "ini":
        pytester.makeini("[pytest]\noverfit_require_gpu = true\n")
    result = pytester.runpytest_inprocess(
        "--overfit-config", "tiny.yaml", "-k", "config or objective", *(["--overfit-require-gpu"] * (how == "option"))
    )
    result.assert_outcomes(failed=1, skipped=1, deselected=13)
    result.stdout.fnmatch_lines(["*config: a GPU is required and the run would use the CPU: no GPU used*"])


def test_a_missing_gpu_is_a_visible_note(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A run that fell back to the CPU says so."""
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count():
        pytest.skip("this machine has a GPU")
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "finite")
    result.stdout.fnmatch_lines(["note: no GPU used (*"])


def test_an_unknown_device_lists_what_there_is(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """A device that does not exist names those that do."""
    tiny()
    result = pytester.runpytest_inprocess(
        "--overfit-config", "tiny.yaml", "-k", "config", "--overfit-device", "cuda:63"
    )
    result.assert_outcomes(failed=1, deselected=14)
    result.stdout.fnmatch_lines(["*device 'cuda:63' is not there*allowed auto, cpu*"])


def test_log_dir_holds_the_scalars_of_the_guide(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """TensorBoard's own reader finds every scalar under the guide's names, for train and val."""
    tiny()
    pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--overfit-log-dir", "boards", "-k", "objective")
    scalars = read_scalars(next((pytester.path / "boards" / "tiny").iterdir()))
    losses = ("objective", "camera", "T", "R", "FL", "conf_depth", "reg_depth", "grad_depth", "depth")
    wanted = {f"{split}/loss_{name}" for split in ("train", "val") for name in losses}
    assert (
        wanted | {f"watch/{name}" for name in ("lr", "weight_decay", "grad_norm/trunk", "grad_norm/camera_head")}
        <= scalars.keys()
    )
    steps = [step for step, _ in scalars["train/loss_objective"]]
    assert steps == list(range(1, len(steps) + 1))
    assert scalars["train/loss_camera"][-1][1] < 0.001
    assert scalars["train/loss_depth"] == scalars["train/loss_reg_depth"]


def test_the_usual_log_dir_that_cannot_be_written_is_replaced_and_said(
    pytester: pytest.Pytester, tiny: TinyConfig
) -> None:
    """Nobody asked for that folder: a read-only place costs the run nothing but its usual one."""
    tiny()
    (pytester.path / "overfit_logs").write_text("")
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-k", "objective")
    result.assert_outcomes(passed=1, deselected=14)
    result.stdout.fnmatch_lines(["note: *overfit_logs cannot be written*TensorBoard files are in *"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--overfit-device=gpu", "found 'gpu' (did you mean cuda?)"),
        ("--overfit-set=overfit.max_steps=3", "change: --overfit-set overfit.budget.max_steps=3"),
        ("--overfit-set=overfit.objectiv=3", "did you mean criteria.objective?"),
        ("--overfit-set=overfit.seeds=[-1]", "overfit.seeds"),
        ("--overfit-set=overfit.seeds", "no `=`"),
    ],
)
def test_a_wrong_setting_of_the_command_line_stops_the_session_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    """Before any test, beside no innocent line of one."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    pytester.makepyfile("def test_one(overfit): pass\n\ndef test_two(overfit): pass")
    result = pytester.runpytest_inprocess(given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (told,) = [line for line in result.outlines if line.startswith("::error")]
    assert told.startswith("::error title=")
    assert meant in str(result.stderr)
    assert "name a config" not in str(result.stderr)


def test_what_a_test_may_still_put_right_stops_no_session(pytester: pytest.Pytester) -> None:
    """A criterion that only a config has, and one that another limit stands beside."""
    pytester.makepyfile("def test_one(): pass")
    settings = ("overfit.criteria.prediction=true", "overfit.criteria.objective=false", "optim.optimizer.lr=1")
    result = pytester.runpytest_inprocess(*(f"--overfit-set={text}" for text in settings))
    result.assert_outcomes(passed=1)
