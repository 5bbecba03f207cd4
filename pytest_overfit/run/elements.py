"""The numbers in a tensor of any kind: sparse, nested, quantised, of eight bits, of a class of its own.

What is measured of tensors is measured of dense ones, or of the numbers that lie in the others; a tensor that shows no
numbers (on the meta device, a wrapper around others) is left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.untrusted.objects import attributes, is_a, state

MKLDNN: torch.layout = torch._mkldnn  # type: ignore[attr-defined]
LEAST_BITS = 16  # of a floating-point type that torch computes with
WIDER = {  # types that torch stores, and hardly computes with
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
    torch.uint64: torch.int64,
    torch.complex32: torch.complex64,
}
KINDS = [kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)]
NARROW = {kind for kind in KINDS if kind.is_floating_point and 8 * kind.itemsize < LEAST_BITS}
HARDLY_COMPUTED = NARROW | WIDER.keys()
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # of a floating-point number of so many bytes, as an integer


def is_dense(thing: Any) -> bool:
    """Whether a tensor can be computed with as it is: one number in each place of its shape, of a type that counts.

    Example:
        >>> is_dense(torch.eye(2)), is_dense(torch.eye(2).to_sparse()), is_dense(torch.eye(2, device="meta"))
        (True, False, False)
    """
    if type(thing) not in (Tensor, torch.nn.Parameter):
        if not is_a(thing, Tensor) or is_wrapper(thing) or is_lazy(thing):
            return False
        with torch._C.DisableTorchFunctionSubclass():
            return _is_plain(thing)
    return _is_plain(thing)


def is_strided(thing: Any) -> bool:
    """Whether a tensor has one number in each place of its shape, of whatever type: ``numbers_of`` gives them.

    Example:
        >>> is_strided(torch.eye(2).to(torch.uint16)), is_dense(torch.eye(2).to(torch.uint16))
        (True, False)
    """
    if not is_a(thing, Tensor) or is_wrapper(thing) or is_lazy(thing):
        return False
    with torch._C.DisableTorchFunctionSubclass():
        return _is_strided(thing)


def is_wrapper(tensor: Tensor) -> bool:
    """Whether the class of a tensor computes by itself, as that of a sharded one: its own numbers may lie elsewhere.

    Those of a backend that is written in Python are tensors of its device.
    """
    return _computes(tensor) and tensor.device.type != torch._C._get_privateuse1_backend_name()


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor stands for others inside of a transform of ``torch.func``, as in ``vmap``: it ends with that."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def is_transforming() -> bool:
    """Whether what runs now is inside of such a transform: nothing that a module is given there can be given again."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def numbers_of(tensor: Tensor) -> Tensor | None:
    """The numbers of any tensor, dense and without a graph, of its shape where it is dense; None where it shows none.

    Example:
        >>> numbers_of(torch.eye(3).to_sparse()), numbers_of(torch.eye(3, device="meta"))
        (tensor([1., 1., 1.]), None)

    Of a sparse tensor those that are kept, of a nested one all of them in a row, of a wrapper those that this process
    holds. They may share the memory of the tensor.
    """
    if is_wrapper(tensor):
        held: Any = state(tensor).get("_local_tensor")  # a slot, of the shard that this rank has
        if is_a(held, Tensor) and not is_wrapper(held):
            return numbers_of(held)
        return None if not tensor.is_nested else _plain_numbers(tensor)
    with torch._C.DisableTorchFunctionSubclass():
        return _plain_numbers(tensor)


def copy_of(tensor: Tensor, device: torch.device | str | None = None) -> Tensor:
    """A copy without a graph, of the same class and on a device; the tensor itself where its class knows no copy.

    Example:
        >>> copy_of(torch.ones(2, requires_grad=True))
        tensor([1., 1.], requires_grad=True)
    """
    if is_wrapper(tensor):
        try:
            with users_code():
                twin = tensor.detach().clone()
                twin = twin if device is None else twin.to(device)
        except Refused:
            return tensor
    else:
        with torch._C.DisableTorchFunctionSubclass():
            plain = tensor.detach()
            if device is None or plain.is_meta or plain.layout is MKLDNN:
                twin = plain.clone()
            else:
                twin = plain.to(device, copy=True)
        twin = dressed(twin, tensor)
    return twin.requires_grad_() if tensor.requires_grad else twin


def is_leaf(tensor: Tensor) -> bool | None:
    """Whether no operation made a tensor; None of a view that ``no_grad`` made and whose base was changed in place.

    PyTorch forbids to ask that one for its graph, and to compute with it.
    """
    try:
        return tensor.is_leaf
    except RuntimeError:
        return None


def dressed(plain: Tensor, like: Tensor) -> Tensor:
    """A tensor as one of the class of another, with what that one has as attributes."""
    if type(like) in (Tensor, torch.nn.Parameter) or is_a(plain, type(like)) or _computes(like):
        return plain
    with torch._C.DisableTorchFunctionSubclass():
        twin = plain.as_subclass(type(like))
    attributes(twin).update(attributes(like))
    return twin


def parts_of(tensor: Tensor) -> list[Tensor]:
    """All that makes up a tensor, as dense tensors: of a sparse one its indices too; nothing where it shows nothing."""
    if not is_wrapper(tensor) and tensor.layout not in (torch.strided, MKLDNN) and not tensor.is_nested:
        with torch._C.DisableTorchFunctionSubclass():
            sparse = _coalesced(tensor.detach())
            return [sparse.indices(), sparse.values()]
    if tensor.is_nested:
        return [] if tensor.is_meta else [part.detach() for part in tensor.unbind()]
    if tensor.is_quantized:
        return [tensor.detach().int_repr()]
    if not is_wrapper(tensor) and tensor.layout is torch.strided and not (tensor.is_meta or is_transformed(tensor)):
        with torch._C.DisableTorchFunctionSubclass():
            return [_undressed(tensor.detach())]
    numbers = numbers_of(tensor)
    return [] if numbers is None else [numbers]


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype not in HARDLY_COMPUTED and _is_strided(tensor)


def _is_strided(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_meta:
        return False
    return not (tensor.is_nested or tensor.is_quantized or is_transformed(tensor))


def _is_narrow(tensor: Tensor) -> bool:
    return tensor.dtype in NARROW


def _plain_numbers(tensor: Tensor) -> Tensor | None:
    if tensor.is_meta or is_transformed(tensor):
        return None
    tensor = tensor.detach()
    if tensor.is_nested:
        parts = [part.reshape(-1) for part in tensor.unbind()]
        return torch.cat(parts) if parts else tensor.new_zeros(0)
    if tensor.layout is MKLDNN:
        tensor = tensor.to_dense()
    elif tensor.layout is not torch.strided:
        tensor = _coalesced(tensor).values()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    tensor = _undressed(tensor)
    return tensor.float() if _is_narrow(tensor) else tensor.to(WIDER.get(tensor.dtype, tensor.dtype))


def _computes(tensor: Tensor) -> bool:
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _undressed(tensor: Tensor) -> Tensor:
    return tensor if type(tensor) is Tensor or _computes(tensor) else tensor.as_subclass(Tensor)


def _coalesced(tensor: Tensor) -> Tensor:
    coo = tensor if tensor.layout is torch.sparse_coo else tensor.to_sparse_coo()  # type: ignore[no-untyped-call]
    return coo.coalesce()


def write(tensor: Tensor, value: Tensor) -> None:
    """Gives a tensor its value back, in place where that is possible: views and flattened weights stay connected."""
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        alike = tensor.dtype == value.dtype and tensor.is_meta == value.is_meta and tensor.layout == value.layout
        same_kind = alike and (tensor.is_nested or value.is_nested or tensor.shape == value.shape)
        if same_kind and _same_bits(tensor, value):
            return
        try:
            if not same_kind:
                raise RuntimeError("another kind of tensor")
            tensor.detach().copy_(value)
        except (RuntimeError, TypeError):  # a sparse tensor of other places, a class that knows no copy_
            tensor.data = copy_of(value, tensor.device)


def _same_bits(tensor: Tensor, value: Tensor) -> bool:
    if not (is_dense(tensor) and is_dense(value)) or tensor.device != value.device:
        return False
    plain = tensor.detach()
    if value.is_floating_point() and not (plain.is_neg() or value.is_neg()):
        bits = BITS[value.itemsize]  # in which a zero has a sign, and no NaN differs from itself
        return torch.equal(plain.view(bits), value.view(bits))
    return torch.equal(plain, value) and not (value.is_complex() and bool((value == 0).any()))
