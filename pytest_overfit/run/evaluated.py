"""The trained model in evaluation mode beside its training."""

from __future__ import annotations

from collections.abc import Callable

from pytest_overfit.errors.asking import Questions
from pytest_overfit.run.call_task import CallTask
from pytest_overfit.run.columns import is_extra
from pytest_overfit.run.loop import Curves, evaluate
from pytest_overfit.run.record import Evaluation


def evaluation_of(
    task: CallTask, curves: Curves, again: Callable[[], dict[str, float]] | None, questions: Questions
) -> Evaluation:
    """The loss on the validation batch, and in training.

    A step tells its loss, and updates the weights then: what it did worse since may be that step, and no other mode.
    So where evaluation is worse, training is asked once more, with the weights as they are.

    Args:
        again: the loss in training mode as it is now; None: the last step is all that is known of training.
    """
    train = {name: value for name, value in curves.steps[-1].items() if not is_extra(name)}
    val = evaluate(task, task.val_batch)
    if again is not None and any(val.get(name, 0.0) > value for name, value in train.items()):
        train = questions.ask("training after the last step", again, otherwise=train)
    return Evaluation(train=train, val=val)
