"""Two ranks against one process: the same curves, the same verdicts, one report, everything restored."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.distributed.support import GREEN, RED, SMALL, curve, torchrun
from tests.support.configs import write_tiny
from tests.support.sessions import HANGS, ITEMS, run_folders, start_pytest

CLOSE = 1e-5
TESTS = (
    SMALL
    + """
def restored(model, before):
    return all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


@pytest.fixture
def learns(overfit):
    def run(name, model, batch, loss=F.mse_loss, **settings):
        before = [value.clone() for value in model.state_dict().values()]
        result = overfit(model, batch, loss, **{"optimizer": adam, "max_steps": 300, **settings})
        assert restored(model, before)
        assert not any(p.grad is not None for p in model.parameters())
        written(result, name)
        return result
    return run


def test_split(learns):
    assert "the batch is sharded" in " ".join(learns("split", *made()).record.notes) or RANK == "alone"


def test_uneven(learns):
    net, (x, _) = made()
    net.head = nn.Linear(32, 3)
    target = torch.tensor([0, 1, 2, 0, 1, 2, -100, -100])
    result = learns("uneven", net, (x, target), nn.CrossEntropyLoss(), unused=[])
    assert "each trains on the whole batch" in " ".join(result.record.notes) or RANK == "alone"


def test_batch_statistics(learns):
    net, batch = made()
    net.head = nn.Sequential(nn.BatchNorm1d(32), nn.Linear(32, 1))
    learns("statistics", net, batch)


def test_own_step(learns):
    def step(model, batch, optimizer):
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    learns("step", *made(), None, step=step)


def test_unseeded(learns):
    torch.seed()
    learns("unseeded", Net(), (torch.randn(8, 4), torch.randn(8, 1)))


@pytest.mark.overfit(config="tiny.yaml")
def test_config(overfit_result):
    overfit_result.check()
    written(overfit_result, "config")
"""
)
NAMES = ("split", "uneven", "statistics", "step", "config")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[float]]:
    """The curves of one process."""
    folder = tmp_path_factory.mktemp("alone")
    write_tiny(folder)
    (folder / "test_it.py").write_text(TESTS)
    session = start_pytest("-q", "-p", "no:randomly", folder=folder)
    output, _ = session.communicate(timeout=HANGS)
    assert session.returncode == GREEN, output
    return {name: curve(folder, f"{name}-alone") for name in NAMES}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_are_one_run(strategy: str, alone: Mapping[str, list[float]], tmp_path: Path) -> None:
    """Curves within 1e-5 of those of one process, on both ranks; one report of everything."""
    write_tiny(tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS)
    given = (
        "--junitxml=junit.xml",
        "--overfit-report=report",
        f"--overfit-set=overfit.distributed.strategy={strategy}",
        f"--overfit-set=overfit.criteria.defects={str(strategy == 'ddp').lower()}",  # FSDP2 is not probed
    )
    with torchrun(
        tmp_path, "test_it.py", "--overfit-config=tiny.yaml", "-k", "not tiny.yaml", *given, warm=True
    ) as launch:
        code, output = launch.finish()
    assert code == GREEN, output[-3000:]
    for name, expected in alone.items():
        for rank in "01":
            found = curve(tmp_path, f"{name}-{rank}")
            assert len(found) == len(expected), name
            assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < CLOSE, name
    assert curve(tmp_path, "unseeded-0") == curve(tmp_path, "unseeded-1")
    assert len(re.findall(r"^6 passed", output, re.MULTILINE)) == 1
    assert len(list((tmp_path / "report").glob("*.html"))) == 1
    assert run_folders(tmp_path / "overfit_logs") == {"test_it.py_test_config": 1}
    assert len(ElementTree.parse(tmp_path / "junit.xml").findall(".//testcase")) == 6


def test_a_rank_that_does_not_come_to_its_end(tmp_path: Path) -> None:
    """It ends red, as its session did, and says where it was: no launcher has to kill it."""
    red = "\n\ndef test_red(learns):\n    learns('red', *made(), objective=1e-30, max_steps=3)\n"
    (tmp_path / "test_it.py").write_text(TESTS + red)
    (tmp_path / "conftest.py").write_text(
        "import atexit, os, time\nif os.environ['RANK'] == '1':\n    atexit.register(time.sleep, 10 * 60)\n"
    )
    with torchrun(tmp_path, "test_it.py", "-k", "test_red", warm=True) as launch:
        code, output = launch.finish()
    assert code == RED, output
    assert {*re.findall(r"exitcode\s*: (-?\d+)", output)} == {"1"}
    assert "Timeout (" in output


def test_a_red_config_is_diagnosed_and_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rank names the cause while the other waits; both end with 1; TensorBoard has one run."""
    write_tiny(tmp_path, replace=(("lr: 0.05", "lr: 1.0e-6"), ("max_epochs: 10", "max_epochs: 3")))
    (tmp_path / "conftest.py").write_text(
        "import os, pathlib\n"
        "def pytest_sessionfinish(session):\n"
        "    pathlib.Path(f'code{os.environ[\"RANK\"]}').write_text(str(int(session.exitstatus)))\n"
    )
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    with torchrun(tmp_path, "--overfit-config=tiny.yaml", warm=True) as launch:
        code, output = launch.finish()
    assert code == RED
    assert "why: " in output
    assert output.count("- overfit tiny.yaml -") == 1
    table = [line for line in output.splitlines() if line.startswith(("ok  ", "FAILED  "))]
    failed = {
        line.partition("::")[2].split()[0] for line in output.splitlines() if line.startswith("FAILED tiny.yaml::")
    }
    held = [line.split()[1:] for line in table if line.startswith("ok")]  # with -q
    assert held == [[str(len(ITEMS) - len(failed)), "more"]]
    assert {(tmp_path / f"code{rank}").read_text() for rank in "01"} == {"1"}
    assert {*re.findall(r"exitcode\s*: (-?\d+)", output)} == {"1"}
    assert run_folders(tmp_path / "overfit_logs") == {"tiny": 1}
    assert summary.read_text().count("## pytest-overfit: 1 of 1 run failed") == 1


def test_what_is_sharded_is_not_probed_and_says_so(tmp_path: Path) -> None:
    """Every limit is met, the defects are not asked and not green: a note, and in a strict session a failure."""
    (tmp_path / "test_it.py").write_text(TESTS)
    told = "not asked: the diagnosis: the model is sharded over ranks (strategy fsdp)"
    for strict, ends in (((), GREEN), (("--overfit-strict", "--overfit-device=cpu"), RED)):
        given = ("-vv", "-k", "test_split", "--overfit-set=overfit.distributed.strategy=fsdp", *strict)
        with torchrun(tmp_path, *given, warm=True) as launch:
            code, output = launch.finish()
        assert code == ends, output
        assert f"note: {told}" in output


def test_a_wrong_setting_is_a_usage_error(tmp_path: Path) -> None:
    """Without a launcher too, in the house form."""
    write_tiny(tmp_path, replace=(("  threads: 1", "  threads: 1\n  distributed: {strategy: dpp, timeout: 0}"),))
    session = start_pytest("--overfit-config=tiny.yaml", folder=tmp_path)
    output, _ = session.communicate(timeout=HANGS)
    assert session.returncode == pytest.ExitCode.USAGE_ERROR
    assert "overfit.distributed.strategy: found 'dpp' (did you mean ddp?), allowed: ddp | fsdp" in output
    assert "overfit.distributed.timeout: found 0, allowed: a number above 0" in output


def test_one_process_has_no_process_group(tmp_path: Path) -> None:
    """Without a launcher: no group, no environment variables, no thread."""
    code = """
import os, threading, torch, torch.distributed as dist
from pytest_overfit import run_overfit
from torch.nn import functional as F
before = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
net = torch.nn.Linear(4, 1)
run_overfit(net, (torch.randn(8, 4), torch.randn(8, 1)), F.mse_loss, max_steps=5, diagnose=False)
import sys
assert not dist.is_initialized()
assert {name: os.environ.get(name) for name in before} == before
assert "overfit-guard" not in {t.name for t in threading.enumerate()}
assert not any(name.startswith("pytest_overfit.run.ranks") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


TWINS = (
    SMALL
    + """
STRATEGY = (HERE / "strategy").read_text()


class Ranked(Net):
    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    def forward(self, x):
        return super().forward(x) * (1 + int(RANK) * self.wrong)


def step(model, batch, optimizer):
    optimizer.zero_grad()
    loss = F.mse_loss(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize("case", ["right", "wrong", "step"])
def test_twins(overfit, case):
    torch.manual_seed(0)
    model, batch = Ranked(case == "wrong"), made()[1]
    given = {"step": step} if case == "step" else {"loss": F.mse_loss}
    def run():
        return overfit(
            model, batch, **given, optimizer=adam, max_steps=20, hold_steps=20, objective=1e9,
            twins=["ranks", "resume"], diagnose=False, supervised=False,
        )

    if case == "wrong" and STRATEGY == "ddp":
        with pytest.raises(AssertionError) as missed:
            run()
        told = str(missed.value)
    else:
        told = "\\n".join(twin.text() for twin in run().record.twins)
    if RANK == "0":
        (HERE / f"{case}.txt").write_text(told)
"""
)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_the_twins_of_a_launch(strategy: str, tmp_path: Path) -> None:
    """Its ranks against one process, where that can be told; the others are not asked, in one line."""
    (tmp_path / "test_it.py").write_text(TWINS)
    (tmp_path / "strategy").write_text(strategy)
    given = f"--overfit-set=overfit.distributed.strategy={strategy}"
    with torchrun(tmp_path, "test_it.py", given, warm=True) as launch:
        _, output = launch.finish()
    told = {case: (tmp_path / f"{case}.txt").read_text() for case in ("right", "wrong", "step")}
    others = "ranks, resume" if strategy == "fsdp" else "resume"  # a model that is sharded is not gathered
    assert told["right"].splitlines()[0] == f"{others}: not asked: 2 ranks train together: ask one process", output
    if strategy == "fsdp":
        return
    assert told["right"].splitlines()[1] == "ranks: agrees over 10 steps (2 ranks in place of one process)"
    assert re.search(r"^twins: ranks: the (loss|gradient of \S+) differs", told["wrong"], re.MULTILINE)
    assert re.search(r"^ +where: step 1; gradients first differ in", told["wrong"], re.MULTILINE)
    assert "a step of its own" in told["step"]
