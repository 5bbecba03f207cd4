"""Held-out mistakes in how a model is trained: its modes, what is done twice, scales and copies, the optimizer.

From trackers: an evaluation in the step that is never undone (huggingface/lerobot#3668), a validation that moves the
running statistics, gradients that are scaled and never unscaled, an average that is written into the model
(huggingface/diffusers#2321), a term that is weighted for another reduction, parameters that fall between the groups of
a weight decay, learning rates for another number of GPUs (open-mmlab/mmdetection#1710).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree
from torch.utils.checkpoint import checkpoint

from benchmarks.wild.operators.architecture import batch_norms, choose, of_type
from benchmarks.wild.operators.data import float_inputs
from benchmarks.wild.operators.held_back import beside, ignores
from benchmarks.wild.operators.loop import STEP
from benchmarks.wild.operators.losses import REGRESSION, first_call
from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.optimizers import split_parameters, trainable
from benchmarks.wild.operators.rewrite import Forward, exchange_loss, on_output, override, train_step
from benchmarks.wild.operators.targets import first_target
from benchmarks.wild.operators.trace import leaves

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@operator("mode", "mode-gap", needs="batchnorm")
def eval_left_on(s: Setup, at: Site) -> str | None:
    """The first step ends with a validation, after which nobody calls model.train()."""
    validated: list[bool] = []

    def before(model: nn.Module, batch: Any) -> None:
        if validated:
            model.eval()
        validated[:] = [True]

    s.step = train_step(at.program.loss, before=before)
    return f"{STEP}: model.eval() from the second on"


@operator("mode", "mode-gap", "drift", needs="batchnorm")
def statistics_of_other_data(s: Setup, at: Site) -> str | None:
    """Every step ends with a validation in training mode, on data of another scale: it moves running statistics."""
    if not batch_norms(s, at):
        return None

    def validate(model: nn.Module, batch: Any) -> None:
        other = _pytree.tree_map(lambda x: 3 * x + 2 if isinstance(x, Tensor) and x.is_floating_point() else x, batch)
        with torch.no_grad():
            at.program.loss(model, other)

    s.step = train_step(at.program.loss, after=validate)
    return f"{STEP}: a validation without model.eval()"


@operator("mode", "mode-gap")
def scaled_in_training_alone(s: Setup, at: Site) -> str | None:
    """A part is scaled by its keep rate in training, and not in evaluation, where a dropout by hand has to be."""
    places = at.trace.places(lambda call: call.graph and call.below > 0)
    if (name := choose(at, places)) is None:
        return None
    part = s.model.get_submodule(name)
    on_output(part, lambda out: 0.5 * out if part.training else out)
    return f"{name}: x 0.5 in training"


def _dropouts(s: Setup, at: Site) -> list[str]:
    return [name for name in of_type(s, at, *DROPOUTS) if s.model.get_submodule(name).p > 0]  # type: ignore[operator]


@operator("mode", "mode-gap", "stochastic", needs="dropout")
def dropout_flag_inverted(s: Setup, at: Site) -> str | None:
    """F.dropout with training=not self.training: on in evaluation, off in training."""
    names = _dropouts(s, at)
    if not names or not at.trace.repeats:
        return None
    name = at.choose.choice(names)
    layer: Any = s.model.get_submodule(name)
    override(layer, lambda inner, x: F.dropout(x, layer.p, not layer.training))
    return f"{name}: F.dropout(x, {layer.p}, training=not self.training)"


@operator("mode", "wrong-backward", "stochastic", needs="dropout")
def checkpoint_draws_anew(s: Setup, at: Site) -> str | None:
    """A part is checkpointed without its random state: its backward pass drops other units than its forward pass."""
    inside = tuple(_dropouts(s, at))
    places = at.trace.places(
        lambda call: call.graph and call.below > 0 and any(each.startswith(f"{call.name}.") for each in inside)
    )
    if (name := choose(at, places)) is None:
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return inner(*args, **kwargs)
        return checkpoint(inner, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    override(s.model.get_submodule(name), forward)
    return f"{name}: checkpoint(preserve_rng_state=False)"


@operator("doubled", "double-activation")
def softmax_as_last_layer(s: Setup, at: Site) -> str | None:
    """The model ends in a softmax, and cross entropy applies another one."""
    if (number := first_call(at, "cross_entropy")) is None:
        return None
    shape = at.trace.losses[number].output
    if len(shape) < 2:
        return None
    axes = {call.name: _class_axis(call.went, shape) for call in at.trace.modules if call.graph and call.below}
    fits = [name for name, axis in axes.items() if axis]
    if not fits:
        return None
    name = next((each for each in reversed(fits) if each), "")
    on_output(s.model.get_submodule(name), lambda out: out.softmax(axes[name]))  # type: ignore[arg-type]
    return f"{name or 'the model'}: softmax behind it"


def _class_axis(went: tuple[int, ...] | None, shape: tuple[int, ...]) -> int | None:
    """The axis of classes of an output that goes into cross entropy, as it is or with its tokens in a row."""
    if went == shape:
        return 1
    tokens = went is not None and len(went) == 3 and went[-1] == shape[1] and len(shape) == 2
    return -1 if tokens and went is not None and 2 * shape[0] > went[0] * went[1] else None


@operator("doubled", "loss-floor", counts=BREAKING)
def labels_smoothed_twice(s: Setup, at: Site) -> str | None:
    """The labels are smoothed in the batch, as by a mix-up, and by the loss once more: it cannot reach its limit."""
    number = first_call(at, "cross_entropy")
    if number is None or at.trace.losses[number].target.is_floating_point() or ignores(at.trace.losses[number].target):
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        count = out.shape[1]
        smooth = F.one_hot(target, count).movedim(-1, 1).to(out.dtype) * 0.9 + 0.1 / count
        return F.cross_entropy(out, smooth, label_smoothing=0.1)

    exchange_loss(s, number, loss)
    return "the loss: smoothed targets with label_smoothing=0.1"


@operator("doubled", "input-scale", counts=BREAKING)
def divided_by_255_twice(s: Setup, at: Site) -> str | None:
    """Inputs that are normalised are divided by 255 once more."""
    found = float_inputs(s, at)
    if not found or any(torch.equal(found[0][1], call.target) for call in at.trace.losses) or not beside(s, at):
        return None
    path, tensor = found[0]
    tensor.div_(255)
    return f"batch{path}: / 255"


@operator("scale", "loss-scale", counts=BREAKING)
def summed_for_mean(s: Setup, at: Site) -> str | None:
    """The loss is the sum over all there is, and its limit is one for the mean."""
    if (number := first_call(at)) is None:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        is_mean = rest.get("reduction", "mean") == "mean"
        return func(out, target, **{**rest, "reduction": "sum"} if is_mean else rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return "the loss: reduction='sum'"


@operator("scale", "target-scale")
def targets_in_kilometres(s: Setup, at: Site) -> str | None:
    """The targets are a thousandth of what they should be: to tell nothing is below the limit."""
    if (number := first_call(at, *REGRESSION)) is None:
        return None
    path = first_target(s.batch, at.trace.losses[number].target)
    if path is None or path in at.trace.inputs:
        return None
    dict(leaves(s.batch))[path].div_(1000)
    return f"batch{path}: / 1000"


@operator("doubled", "wrong-backward", "zero-gradient", "no-gradient")
def hook_in_every_call(s: Setup, at: Site) -> str | None:
    """A hook that halves the gradients of a part is registered in every call, beside those of the calls before."""
    if (name := choose(at, at.trace.places(lambda call: call.graph and call.below > 0))) is None:
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        part: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        for each in trainable(part) if torch.is_grad_enabled() else ():
            each.register_hook(lambda gradient: gradient / 2)  # type: ignore[no-untyped-call]
        return inner(*args, **kwargs)

    override(s.model.get_submodule(name), forward)
    return f"{name}: register_hook in forward"


@operator("scale", "wrong-backward", "loss-scale")
def gradients_left_scaled(s: Setup, at: Site) -> str | None:
    """The loss is scaled for its backward pass, and the optimizer steps without the scaler."""
    scaler = torch.amp.GradScaler("cpu")
    s.step = train_step(at.program.loss, backward=lambda value: scaler.scale(value).backward())  # type: ignore[no-untyped-call]
    return f"{STEP}: optimizer.step() for scaler.step(optimizer)"


@operator("scale", "term-weight", "term-missing", "unsupervised", "zero-gradient", needs="terms")
def term_weighted_away(s: Setup, at: Site) -> str | None:
    """One of several terms of the loss has a weight that was meant for a sum and multiplies a mean."""
    terms = [number for number, call in enumerate(at.trace.losses) if call.grad]
    if len(terms) < 2:
        return None
    number = at.choose.choice(terms)
    exchange_loss(s, number, lambda func, out, target, **rest: 1e-6 * func(out, target, **rest))
    return f"the loss: term {number} x 1e-6"


@operator("swapped", "ema", "weights-reset", "drift")
def average_and_model_swapped(s: Setup, at: Site) -> str | None:
    """The update of a moving average has its arguments swapped: the model moves to the average, which stays."""
    average = [each.detach().clone() for each in trainable(s.model)]

    @torch.no_grad()
    def follow(model: nn.Module, batch: Any) -> None:
        for each, stays in zip(trainable(model), average, strict=True):
            each.mul_(0.01).add_(stays, alpha=0.99)

    s.step = train_step(at.program.loss, after=follow)
    return f"{STEP}: the weights are 0.99 of the average's"


@operator("swapped", "mode-gap", "batch-mixing", needs="batchnorm")
def modes_swapped(s: Setup, at: Site) -> str | None:
    """A flag is handed on the wrong way round: the model is in evaluation mode where it trains, and the reverse."""
    if not batch_norms(s, at):
        return None
    base = type(s.model)
    members = {"train": lambda self, mode=True: base.train(self, not mode), "__module__": base.__module__}
    s.model.__class__ = type(base.__name__, (base,), members)
    return "model.train(not training)"


@operator("optimizer", "weight-decay", "optimizer-hyperparameter", counts=BREAKING)
def decay_of_another_kind(s: Setup, at: Site) -> str | None:
    """A weight decay that suits AdamW is given to Adam, which adds it to the gradient."""
    s.optimizer = torch.optim.Adam(trainable(s.model), at.program.lr, weight_decay=0.5)
    return "the optimizer: Adam(weight_decay=0.5)"


@operator("optimizer", "no-step", "optimizer-coverage", "no-update")
def second_optimizer_not_stepped(s: Setup, at: Site) -> str | None:
    """Two optimizers hold half of the model each, and one of them is never stepped."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, others = split
    s.optimizer, second = at.optimizer(others), at.optimizer(inside)
    s.step = train_step(at.program.loss, before=lambda model, batch: second.zero_grad())
    return f"{STEP}: the optimizer of {name} is not stepped"


@operator("optimizer", "optimizer-coverage")
def gains_in_no_group(s: Setup, at: Site) -> str | None:
    """Groups for a weight decay are of matrices and of what is called bias: gains and other vectors are in none."""
    named = [(name, each) for name, each in s.model.named_parameters() if each.requires_grad]
    matrices = [each for name, each in named if each.dim() > 1]
    biases = [each for name, each in named if each.dim() < 2 and name.endswith("bias")]
    if not matrices or not biases or len(matrices) + len(biases) == len(named):
        return None
    s.optimizer = at.optimizer([{"params": matrices}, {"params": biases, "weight_decay": 0.0}])
    return "the optimizer: without weights of one axis"


@operator("optimizer", "optimizer-state", "lr-low", counts=BREAKING)
def moments_of_another_run(s: Setup, at: Site) -> str | None:
    """The optimizer's state was loaded from a run whose gradients were scaled: its second moments are huge."""
    optimizer = at.optimizer(trainable(s.model))
    if not isinstance(optimizer, torch.optim.Adam):
        return None
    for each in trainable(s.model):
        optimizer.state[each] = _state(each)
    s.optimizer = optimizer
    return "the optimizer: moments of a run with scaled gradients"


def _state(parameter: Tensor) -> dict[str, Tensor]:
    second = torch.full_like(parameter, 1e6)
    return {"step": torch.tensor(1000.0), "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": second}


@operator("optimizer", "lr-high", counts=BREAKING)
def rate_of_many_devices(s: Setup, at: Site) -> str | None:
    """The learning rate is multiplied by the number of devices of another machine."""
    s.optimizer = at.program.optimizer(trainable(s.model), at.program.lr * 64)
    return "the optimizer: lr x 64"
