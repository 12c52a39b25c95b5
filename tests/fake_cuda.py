"""A GPU that is not there: tensors whose values lie in main memory and whose device is `cuda:0`.

`with fake_cuda():` runs any code as on a machine with one GPU. `torch.cuda.is_available()` is true, and what is
moved to `cuda` or made there becomes a `CudaTensor`: its numbers are computed on the processor, so that training,
files and decoding take their real course, but it may meet other tensors only where CUDA's may. Whether an operation
may mix devices is decided by torch's own fake tensors (`FakeTensorMode`), on tensors of the same shapes. They alone
do not do: a build of torch without CUDA aborts as soon as autograd sees one on a CUDA device, and code that reads a
value (a loss, a token, a cue for a file) stops at them.

As with CUDA, no number leaves the device but by `.cpu()`, `.to("cpu")`, `.item()` or `.tolist()` (`.numpy()` raises
TypeError), and a process that was forked cannot use the device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_flatten, tree_map

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
MEMORY = 1 << 33  # bytes of the device
aten = torch.ops.aten
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)  # their indices may lie in main memory
_fakes = FakeTensorMode(allow_non_fake_inputs=True)


class MixedDevices(RuntimeError):
    """An operation on tensors of several devices."""


class CudaTensor(Tensor):
    """Wraps a tensor in main memory, `values`, and says that it lies on the GPU."""

    values: Tensor
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, values: Tensor) -> CudaTensor:
        assert not isinstance(values, CudaTensor)
        # Towards autograd it lies in main memory: a build without CUDA has no queue for another device.
        with torch.inference_mode(False):
            tensor = Tensor._make_wrapper_subclass(
                cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype
            )
        tensor.values = values
        return tensor

    def __repr__(self, **_: Any) -> str:
        return f"CudaTensor({self.values!r})"

    def __reduce_ex__(self, _: Any) -> Any:
        raise RuntimeError("a CUDA tensor is not to be sent to another process or written to a file")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if os.getpid() != _device.process:
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
        kwargs = kwargs or {}
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        # A number (no dimensions) in main memory goes with any device.
        if any(not isinstance(each, CudaTensor) and each.ndim for each in tensors):
            _require_mixable(func, args, kwargs)
        wrappers = {id(each.values): each for each in tensors if isinstance(each, CudaTensor)}
        out = func(*tree_map(_values, args), **tree_map(_values, kwargs))
        if torch.Tag.inplace_view in func.tags:  # the wrapper takes the new shape, too
            with no_dispatch():
                func(*args, **kwargs)
        given = {id(each) for each in tensors}  # what is changed in place stays where it is
        return tree_map(
            lambda each: each if not isinstance(each, Tensor) or id(each) in given else _wrap(each, wrappers), out
        )


def _wrap(values: Tensor, wrappers: dict[int, CudaTensor]) -> CudaTensor:
    """The wrapper of values that were changed in place, else a new one."""
    return wrappers[id(values)] if id(values) in wrappers else CudaTensor(values)


def _values(each: Any) -> Any:
    if isinstance(each, CudaTensor):
        return each.values
    return CPU if isinstance(each, torch.device) and each.type == "cuda" else each


def _fake(each: Any) -> Any:
    """A fake tensor of the same shape on the device that `each` says it lies on."""
    if not isinstance(each, Tensor):
        return each
    shape = torch.empty_strided(each.size(), each.stride(), dtype=each.dtype, device="meta")
    return FakeTensor(_fakes, shape, CUDA if isinstance(each, CudaTensor) else CPU)


def _require_mixable(func: Any, args: tuple, kwargs: dict) -> None:
    """Raise MixedDevices if torch's fake tensors refuse the operation."""
    if func in INDEXED:
        # FakeTensorMode asks the device, which a build without CUDA does not have.
        target, indices = args[0], [each for each in args[1] if each is not None]
        elsewhere = [each for each in indices if isinstance(each, CudaTensor) and not isinstance(target, CudaTensor)]
        values = [each for each in args[2:3] if each.ndim and type(each) is not type(target)]
        if elsewhere or values:
            raise MixedDevices(f"{func}: tensors of several devices")
        return
    if func is aten.copy_.default:
        return
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        fakes = tree_map(_fake, (args, kwargs))
    try:
        FakeTensor._find_common_device(func, tree_flatten(fakes)[0])
    except RuntimeError as error:
        raise MixedDevices(str(error)) from None


class _Move(torch.autograd.Function):
    """Copy to the other device; the gradient goes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, to_cuda: bool) -> Tensor:
        ctx.to_cuda = to_cuda
        return CudaTensor(tensor.detach().clone()) if to_cuda else tensor.values.clone()  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return (gradient.values if ctx.to_cuda else CudaTensor(gradient)), None  # type: ignore[attr-defined]


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    if (device.type == "cuda") == isinstance(tensor, CudaTensor):
        return tensor
    return _Move.apply(tensor, device.type == "cuda")


MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.type_as}
LEAVES = {Tensor.numpy, Tensor.__array__}
READS = {Tensor.tolist, Tensor.data_ptr, Tensor.storage, Tensor.untyped_storage}
NEW = {torch.tensor, torch.as_tensor, torch.asarray}


class _Device(TorchFunctionMode):
    """Sends what is made on `cuda`, or moved there, to `CudaTensor`."""

    process = os.getpid()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in MOVES:
            return self._moved(func, args, kwargs)
        if func in LEAVES and isinstance(args[0], CudaTensor):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        if func in READS and isinstance(args[0], CudaTensor):
            return func(args[0].values, *args[1:], **kwargs)
        device = kwargs.get("device")
        if device is None or torch.device(device).type not in ("cuda", "cpu") or func.__name__ == "__get__":
            return func(*args, **kwargs)
        target = torch.device(device)
        if func in NEW and isinstance(args[0], Tensor):
            return _move(func(args[0], **{**kwargs, "device": None}), target)
        args, kwargs = tree_map(_values, (args, {**kwargs, "device": CPU}))
        made = func(*args, **kwargs)
        return tree_map(lambda each: _move(each, target) if isinstance(each, Tensor) else each, made)

    @staticmethod
    def _moved(func: Any, args: tuple, kwargs: dict) -> Tensor:
        """`tensor.to(device, dtype)`, `.to(dtype)`, `.to(other)`, `.cpu()`, `.cuda()`, `.type_as(other)`."""
        tensor, target = args[0], args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("device"))
        device, dtype = target, kwargs.get("dtype", args[2] if len(args) > 2 else None)
        if func in (Tensor.cpu, Tensor.cuda):
            device, dtype = (CPU if func is Tensor.cpu else CUDA), None
        elif isinstance(target, Tensor):
            device, dtype = target.device, target.dtype
        elif isinstance(target, torch.dtype):
            device, dtype = None, target
        moved = tensor if device is None else _move(tensor, torch.device(device))
        return moved if dtype is None else Tensor.to(moved, dtype)


_device = _Device()


_autocast = torch.autocast.__init__
_run_backward = torch.autograd._engine_run_backward


def _run_backward_on_the_device(*args: Any, **kwargs: Any) -> Any:
    """Gradient checkpointing computes in it, and torch turns the mode off inside `backward`."""
    with _Device():
        return _run_backward(*args, **kwargs)


def _autocast_of_the_processor(context: torch.autocast, device_type: str, *args: Any, **kwargs: Any) -> None:
    _autocast(context, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, this machine has one GPU of `MEMORY` bytes."""
    _Device.process = os.getpid()
    before = torch.__future__.get_swap_module_params_on_conversion()
    properties = type("Properties", (), {"name": "fake", "total_memory": MEMORY, "major": 9, "minor": 0})
    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "is_bf16_supported": True,
        "mem_get_info": (MEMORY, MEMORY),
        "memory_allocated": 0,
        "max_memory_allocated": 1 << 20,
        "reset_peak_memory_stats": None,
        "empty_cache": None,
        "synchronize": None,
        "get_device_capability": (9, 0),
        "get_device_name": "fake",
        "get_device_properties": properties,
    }
    with ExitStack() as stack:
        for name, value in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, lambda *_, value=value, **__: value))
        stack.enter_context(patch.object(torch.autograd, "_engine_run_backward", _run_backward_on_the_device))
        stack.enter_context(patch.object(torch.autocast, "__init__", _autocast_of_the_processor))
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, before)
        stack.enter_context(_device)
        yield
