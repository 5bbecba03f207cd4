"""What a person sees at the end: the table."""

from __future__ import annotations

import pytest

from pytest_overfit.text.terminal_width import columns as wide
from tests.plugin.conftest import TinyConfig
from tests.support.sessions import ITEMS


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_the_table_fits_the_terminal(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """No row wraps, limits and margins are whole, and what is cut short there stands in the failures."""
    monkeypatch.setenv("COLUMNS", str(columns))
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "--overfit-set=overfit.budget.max_steps=40")
    table = [line for line in result.outlines if line.startswith(("verdict ", "ok  ", "FAILED   "))]
    assert len(table) == 1 + len(ITEMS)
    assert max(map(len, table)) <= columns
    result.stdout.fnmatch_lines(
        [
            "camera: loss_camera 0.0* (start 1.512, best 0.0*), allowed < 0.001 for 5 steps in a row",
            "FAILED   camera          loss_camera 0.0*  < 0.001  0.0*x",
            "ok       depth           loss_reg_depth 0.00*  < 0.01 *[0-9]",
        ]
    )


def test_a_table_reads_from_the_cause_to_the_effect(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Rows stand in the order of the items, whatever their outcome."""
    tiny()
    result = pytester.runpytest_inprocess(
        "--overfit-config",
        "tiny.yaml",
        "--overfit-set=optim.frozen_module_names=[trunk]",
        "-k",
        "gradients or depth or pair",
    )
    rows = [line.split()[:2] for line in result.outlines if line.startswith(("ok  ", "FAILED   "))]
    assert rows == [["ok", "pair"], ["ok", "gradients"], ["FAILED", "depth"]]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_in_chinese(
    pytester: pytest.Pytester, tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Verdicts, rows, the title of the cause and the headings; what is to be pasted stays, and no row wraps."""
    monkeypatch.setenv("COLUMNS", str(columns))
    tiny()
    frozen = "--overfit-set=optim.frozen_module_names=['*camera_head*']"
    result = pytester.runpytest_inprocess(
        "--overfit-config=tiny.yaml", "--overfit-lang=zh", "--overfit-max-steps=20", frozen
    )
    result.stdout.fnmatch_lines(
        [
            "objective *，要求 < 0.01：4 个参数张量中有 2 个被 '*camera_head*' 冻结",
            "  位置：tiny.yaml:* optim.frozen_module_names：camera_head.weight, camera_head.bias",
            "  修改：--overfit-set 'optim.frozen_module_names=[[]]'",
            "  原因：frozen 参数被冻结（由探测显示）：*pytest-overfit explain frozen",
            "loss_camera *，要求 < 0.001：frozen 参数被冻结，见 ::objective",
        ]
    )
    table = [line for line in result.outlines if line.startswith(("判定 ", "通过 ", "未通过 "))]
    assert len(table) == 1 + len(ITEMS)
    assert max(map(wide, table)) <= columns
    assert {wide(line[: line.index(name)]) for name, line in zip(ITEMS, table[1:], strict=True)} == {len("FAILED   ")}
