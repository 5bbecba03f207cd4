"""A TensorBoard file of one run, written while it goes, under the names that the trainer's guide uses."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.report.board.layout import (
    WATCH,
    LimitLines,
    Verdict,
    chart_layout,
    code_block,
    hyperparameters,
    verdict_metrics,
)
from pytest_overfit.run.columns import is_extra
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.observer import Observer, Pictures

if TYPE_CHECKING:
    from pytest_overfit.settings.criteria import Limit

FLUSH_SECONDS = 2.0


class TensorBoardLog(Observer):
    """An observer that writes all there is of a run.

    Scalars ``train/<term>`` and ``val/<term>``; below ``watch/``, which TensorBoard sorts behind them, ``lr``,
    ``weight_decay``, ``limits/<criterion>``, ``grad_norm/<group>``, ``update_norm/<group>`` and
    ``confidence/<mean|min|max>``, at the end ``cameras`` and ``frame_<i>/<panel>``, pictures where the config asks for
    them; charts of curve and limit; the verdict as numbers, text and a row of HPARAMS.

    ``loss_objective`` and ``loss_depth`` are written under these names whatever the loss calls them. Every two seconds
    the file is flushed, so a run that is killed leaves what it had.

    Example:
        >>> log = TensorBoardLog(folder, limits=config.overfit.criteria.limits())
        >>> result = run_and_judge(observers=[log])
        >>> log.on_result(result)
        >>> log.close()

    Args:
        folder: the run's own folder.
        every: steps between two written training rows; the last one of a run is always written.
        keys: per split, the only terms to write (``logging.scalar_keys_to_log``); absent or empty: all of them.
        limits: criterion name -> limit, drawn as lines beside the terms.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int = 1,
        keys: Mapping[str, Sequence[str]] | None = None,
        limits: Mapping[str, Limit] | None = None,
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # tensorboard's own imports warn, and a test suite may turn that into errors
            from torch.utils.tensorboard.summary import hparams
            from torch.utils.tensorboard.writer import SummaryWriter

            self.writer: Any = SummaryWriter(str(folder), flush_secs=10)
            _write_at_once(self.writer)
            self.hparams: Any = hparams
        self.folder = folder
        self.every = every
        self.keys = keys or {}
        self.lines = LimitLines(limits or {})
        self.flushed = time.monotonic()
        self.step = self.limits_at = 0
        self.unwritten: tuple[int, Mapping[str, float]] | None = None

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        if not first and rows:
            self.writer.add_custom_scalars(chart_layout(self.lines.limits, list(rows[0])))
        self.step = first + len(rows)
        for step, row in enumerate(rows, first + 1):
            self.lines.see(row)
            if step == 1:
                self._write_limits(1)
            if (step - 1) % self.every:
                self.unwritten = (step, row)
            else:
                self._write_step(step, row)
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self._write_limits(self.step)
            self._flush()

    def on_val(self, step: int, terms: Mapping[str, float]) -> None:
        self._write("val", step, terms)

    def on_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(f"{WATCH}/{name}", value, step)

    def on_pictures(self, pictures: Pictures) -> None:
        for name, panel in pictures.panels().items():
            self.writer.add_image(f"{WATCH}/{name}", panel, self.step, dataformats="HWC")
        self._flush()

    def on_result(self, result: Verdict) -> None:
        """Writes the verdict: a row of the HPARAMS page, ``verdict/<number>``, and the summary as text."""
        self.finish()
        metrics = verdict_metrics(result)
        # add_hparams would open a folder of its own, which TensorBoard shows as one more run
        for summary in self.hparams(hyperparameters(result, self.lines.limits), metrics):
            self.writer.file_writer.add_summary(summary)
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, self.step)
        self.writer.add_text("summary", code_block(result.summary()), self.step)
        self._flush()

    def finish(self) -> None:
        """Writes what is held back, for a run that has ended."""
        if self.unwritten is not None:
            self._write_step(*self.unwritten)
        self._write_limits(self.step)
        self._flush()

    def close(self) -> None:
        """Writes what is held back and closes the file."""
        self.finish()
        self.writer.close()

    def _write_limits(self, step: int) -> None:
        """One point of every line; two make a line, so that few are enough."""
        if step > self.limits_at:
            self.on_numbers(step, self.lines.values())
            self.limits_at = step

    def _flush(self) -> None:
        self.writer.flush()
        self.flushed = time.monotonic()

    def _write_step(self, step: int, row: Mapping[str, float]) -> None:
        self.unwritten = None
        losses = {name: value for name, value in row.items() if not is_extra(name)}
        self._write("train", step, losses)
        self.on_numbers(step, {name: value for name, value in row.items() if name not in losses})

    def _write(self, split: str, step: int, terms: Mapping[str, float]) -> None:
        wanted = self.keys.get(split)
        for name, value in guide_names(terms).items():
            if not wanted or name in wanted:
                self.writer.add_scalar(f"{split}/{name}", value, step)


class _Direct:
    """Stands where TensorBoard has a thread that writes: an error of that one is a warning in whatever runs then."""

    def __init__(self, records: Any) -> None:
        self.records = records
        self.write, self.flush = records.write, records.flush

    def close(self) -> None:
        if not self.records.closed:
            self.records.flush()
            self.records.close()


def _write_at_once(writer: Any) -> None:
    """Ends the thread of a ``SummaryWriter``; what it writes is buffered until a flush all the same."""
    events = writer.file_writer.event_writer
    threaded = events._async_writer
    threaded._worker.stop()
    events._async_writer = _Direct(threaded._writer)


def guide_names(terms: Mapping[str, float]) -> dict[str, float]:
    """Loss terms under the guide's names.

    Example:
        >>> guide_names({"objective": 0.5, "loss_reg_depth": 0.1})
        {'loss_objective': 0.5, 'loss_reg_depth': 0.1, 'loss_depth': 0.1}
    """
    named = {("loss_objective" if name == "objective" else name): value for name, value in terms.items()}
    depth = resolve_term("depth", terms)
    if depth is not None:
        named.setdefault("loss_depth", terms[depth])
    return named
