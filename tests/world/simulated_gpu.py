"""A GPU that is none: what CUDA would object to, seen on a machine without one.

Within `SimulatedGpu` a tensor that was moved to "cuda" stays in ordinary memory and is computed with as usual, but its
storage is marked, `tensor.device` says "cuda:0", and every operation is looked at:

- one that mixes marked and unmarked tensors raises, as on a GPU;
- one that must wait for the device (a scalar read on the host, a copy to it, a shape that depends on values) is noted
  in `waits`; a copy to the device from memory that is not pinned is noted in `uploads`;
- tensors of another stream must be waited for, and told to the allocator (`record_stream`), before they are used;
- the fused AdamW insists on equal strides of weights, gradients and moments, as its CUDA kernel does;
- the marked storages that are alive are counted: beyond `memory` bytes torch.OutOfMemoryError is raised.

It says nothing of speed, of kernels and their numbers, of the driver or of NCCL.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
# Operations whose result's shape or value the host must know; indexing by a mask is another.
WAITING = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::bincount"),
    *("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::repeat_interleave.Tensor"),
}
# After this number of new storages those that are gone are forgotten.
FORGET_AFTER = 200


@dataclass(frozen=True)
class Seen:
    """what: the operation; place: "function (file:line)" of the trainer or of a plug-in, the innermost first."""

    what: str
    place: tuple[str, ...]

    def inside(self, *functions: str) -> bool:
        return any(place.startswith(f"{name} (") for place in self.place for name in functions)


class Stream:
    """The order of work on a device: how much was issued on it, and up to where it waited for others."""

    def __init__(self, device: object = None) -> None:
        self.issued = 0
        self.waited: dict[Stream, int] = {}

    def record_event(self) -> tuple[Stream, int]:
        return self, self.issued

    def wait_event(self, event: tuple[Stream, int]) -> None:
        stream, count = event
        self.waited[stream] = max(count, self.waited.get(stream, 0))


@dataclass
class Mark:
    """A storage on the device. stream, number: where and when it was filled; told: streams of which the allocator
    knows that they use it."""

    storage: StorageWeakRef
    size: int
    stream: Stream
    number: int
    told: set[Stream]


class SimulatedGpu:
    """memory: bytes of the device; free: what `mem_get_info` says of it, None: the truth."""

    def __init__(self, memory: int = 2**40, free: int | None = None) -> None:
        self.memory, self.free = memory, free
        self.waits: list[Seen] = []
        self.uploads: list[Seen] = []
        self.most = self._counted = self._new = 0
        self._marks: dict[int, Mark] = {}
        self._pinned: dict[int, StorageWeakRef] = {}
        self._lock = threading.RLock()
        self._here = threading.local()
        self._default = Stream()
        self._left = contextlib.ExitStack()

    def __enter__(self) -> SimulatedGpu:
        cuda = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "synchronize": lambda device=None: self._note(self.waits, "synchronize"),
            "empty_cache": lambda: None,
            "mem_get_info": lambda device=None: (self.memory - self.used if self.free is None else self.free, 0),
            "memory_reserved": lambda device=None: self.used,
            "memory_allocated": lambda device=None: self.used,
            "max_memory_allocated": lambda device=None: self.most,
            "get_rng_state": lambda device=None: torch.get_rng_state(),
            "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
            "is_bf16_supported": lambda including_emulation=True: True,
            "get_device_properties": lambda device=None: SimpleNamespace(name="simulated", total_memory=1, major=9),
            "Stream": Stream,
            "stream": self._on_stream,
            "current_stream": lambda device=None: self.stream,
        }
        self._left.enter_context(patch.multiple("torch.cuda", **cuda))
        self._left.enter_context(patch("torch.autocast", _Autocast))
        self._left.enter_context(patch.object(torch.Tensor, "record_stream", self._tell_allocator))
        for module in ("torch.nn.utils.clip_grad", "torch.optim.optimizer"):
            grouped = f"{module}._group_tensors_by_device_and_dtype"
            self._left.enter_context(patch(grouped, self._grouped(sys.modules[module])))
        self._left.enter_context(patch("trainer_image.engine.steps.ahead.ThreadPoolExecutor", self._executor()))
        self._left.enter_context(self._looking())
        return self

    def __exit__(self, *raised: object) -> None:
        self._left.close()

    @property
    def stream(self) -> Stream:
        """The current one of this thread."""
        return getattr(self._here, "stream", self._default)

    @property
    def used(self) -> int:
        """Bytes of the device that are taken."""
        with self._lock:
            self._marks = {key: mark for key, mark in self._marks.items() if not mark.storage.expired()}
            self._counted, self._new = sum(mark.size for mark in self._marks.values()), 0
            return self._counted

    def has(self, tensor: Tensor) -> bool:
        """Whether the tensor lies on the device."""
        return self._mark(tensor) is not None

    def _mark(self, tensor: Tensor) -> Mark | None:
        with torch._C.DisableTorchFunction(), self._lock:
            mark = self._marks.get(tensor.untyped_storage()._cdata)
        return None if mark is None or mark.storage.expired() else mark

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor's storage lies on the device from now on."""
        if self.has(tensor):
            return tensor
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
        size, stream = storage.nbytes(), self.stream
        with self._lock:
            # What is counted may be gone meanwhile: looked at again before it matters.
            if self._counted + size > self.most or self._new > FORGET_AFTER:
                if self.used + size > self.memory:
                    raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
                self.most = max(self.most, self._counted + size)
            self._counted, self._new = self._counted + size, self._new + 1
            stream.issued += 1
            self._marks[storage._cdata] = Mark(StorageWeakRef(storage), size, stream, stream.issued, {stream})
        return tensor

    def pin(self, tensor: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
        self._pinned[storage._cdata] = StorageWeakRef(storage)
        return tensor

    def moved(self, tensor: Tensor, there: bool, **options: Any) -> Tensor:
        """A copy on the other side; options: of `Tensor.to`."""
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()._cdata
        if not there:
            self._note(self.waits, "copy to the host")
        elif storage not in self._pinned or self._pinned[storage].expired():
            self._note(self.uploads, "copy from memory that is not pinned")
        with self._aside():
            copied = tensor.to(**{**options, "device": CPU, "copy": True})
        return self.put(copied) if there else copied

    def check_use(self, operation: str, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            mark, stream = self._mark(tensor), self.stream
            if mark is None or mark.stream is stream:
                continue
            if stream.waited.get(mark.stream, 0) < mark.number:
                raise AssertionError(f"{operation} uses what another stream may not have finished")
            if stream not in mark.told:
                raise AssertionError(f"{operation} uses memory of another stream that the allocator was not told of")

    @property
    def _tell_allocator(self) -> Callable[[Tensor, Stream], None]:
        def record_stream(tensor: Tensor, stream: Stream) -> None:
            mark = self._mark(tensor)
            assert mark is not None
            mark.told.add(stream)

        return record_stream

    def wait(self, operation: str) -> None:
        self._note(self.waits, operation)

    def upload(self, operation: str) -> None:
        self._note(self.uploads, operation)

    @property
    def aside(self) -> bool:
        """Our own doing: not to be looked at."""
        return getattr(self._here, "aside", 0) > 0

    @property
    def within(self) -> bool:
        """In the midst of a call with tensors on the device: what it makes lies there, too."""
        return getattr(self._here, "within", 0) > 0

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        self._here.within = getattr(self._here, "within", 0) + 1
        try:
            yield
        finally:
            self._here.within -= 1

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        self._here.aside = getattr(self._here, "aside", 0) + 1
        try:
            with torch._C.DisableTorchFunction():
                yield
        finally:
            self._here.aside -= 1

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        with _Operations(self), _Calls(self):
            yield

    @contextlib.contextmanager
    def _on_stream(self, stream: Stream) -> Iterator[None]:
        before = self.stream
        self._here.stream = stream
        try:
            yield
        finally:
            self._here.stream = before

    def _executor(self) -> type[ThreadPoolExecutor]:
        gpu = self

        class Looking(ThreadPoolExecutor):
            """Modes are a thread's own: a worker needs them, too."""

            def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
                def looked_at() -> Any:
                    with gpu._looking():
                        return fn(*args, **kwargs)

                return super().submit(looked_at)

        return Looking

    def _grouped(self, module: Any) -> Callable[..., Any]:
        """Optimizer and clipping ask which device tensors lie on below Python."""
        real = module._group_tensors_by_device_and_dtype

        def grouped(lists: list[list[Tensor | None]], *args: Any, **kwargs: Any) -> Any:
            found = real(lists, *args, **kwargs)
            ours = any(tensor is not None and self.has(tensor) for tensor in lists[0])
            return {((GPU if ours else device), dtype): rest for (device, dtype), rest in found.items()}

        return grouped

    def _note(self, where: list[Seen], what: str) -> None:
        frame, place = sys._getframe(1), []
        while frame:
            file = frame.f_code.co_filename
            if "trainer_image" in file or "my_forecaster" in file:
                place.append(f"{frame.f_code.co_name} ({file.rpartition('/')[2]}:{frame.f_lineno})")
            frame = frame.f_back  # type: ignore[assignment]
        where.append(Seen(what, tuple(place)))


class _Autocast(torch.amp.autocast_mode.autocast):
    """The CPU's, whatever was asked for: its list of operations differs a little from CUDA's."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


class _Calls(TorchFunctionMode):
    """What Python asks of torch: devices are told, and asked for, here."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu = dict(kwargs or {}), self._gpu
        name = getattr(func, "__name__", "")
        tensor = args[0] if args and isinstance(args[0], Tensor) else None
        ours = tensor is not None and gpu.has(tensor)
        if name == "__get__" and tensor is not None:
            of = getattr(func, "__self__", None)
            if of is torch.Tensor.device:
                return GPU if ours else func(*args, **kwargs)
            if of in (torch.Tensor.is_cuda, torch.Tensor.is_cpu):
                return ours if of is torch.Tensor.is_cuda else not ours
        if tensor is not None and name in ("to", "cpu", "cuda"):
            return self._to(func, name, args, kwargs)
        if ours and name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if ours and name == "tolist":
            gpu.wait("tolist")
        wanted = kwargs.get("device")
        there = wanted is not None and torch.device(wanted).type == "cuda"
        if there:
            kwargs["device"] = CPU
        pinned = kwargs.pop("pin_memory", False)
        if there or any(isinstance(leaf, Tensor) and gpu.has(leaf) for leaf in tree_leaves((args, kwargs))):
            with gpu.entered():
                result = func(*args, **kwargs)
        else:
            result = func(*args, **kwargs)
        if there or (ours and name == "__deepcopy__"):
            gpu.put(result)
        return gpu.pin(result) if pinned else result

    def _to(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        gpu, tensor, rest = self._gpu, args[0], list(args[1:])
        options = dict(kwargs)
        for value in rest:
            if isinstance(value, Tensor):
                options |= {"device": GPU if gpu.has(value) else CPU, "dtype": value.dtype}
            elif isinstance(value, torch.dtype):
                options["dtype"] = value
            elif isinstance(value, bool):
                options["non_blocking"] = value
            elif value is not None:
                options["device"] = torch.device(value)
        if name != "to":
            options["device"] = CPU if name == "cpu" else GPU
        wanted = options.get("device")
        there = gpu.has(tensor) if wanted is None else torch.device(wanted).type == "cuda"
        if there != gpu.has(tensor):
            return gpu.moved(tensor, there, **options)
        with gpu.entered() if there else contextlib.nullcontext():
            return tensor.to(**{**options, "device": CPU})


class _Operations(TorchDispatchMode):
    """What is computed, also by autograd: who may meet whom, what must be waited for, how much memory it takes."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu, name = kwargs or {}, self._gpu, func.name()
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if gpu.has(tensor)]
        if gpu.aside or not (ours or (gpu.within and not tensors)):
            return func(*args, **kwargs)
        # As on a GPU, a number may come from the host.
        others = [tensor for tensor in tensors if tensor.dim() and not gpu.has(tensor)]
        gpu.check_use(name, ours)
        if name.startswith("aten::copy_"):
            if others:
                gpu.wait(name) if gpu.has(args[1]) else gpu.upload(name)
            return func(*args, **kwargs)
        if others:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in others)
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} got {shapes} from the CPU")
        mask = name in ("aten::index.Tensor", "aten::index_put_") and any(
            isinstance(index, Tensor) and index.dtype is torch.bool for index in args[1]
        )
        if mask or name in WAITING:
            gpu.wait(name)
        if name.startswith("aten::_fused_adamw_"):
            for weight, *others in zip(*args[:4], strict=True):
                if any(_strides(other) != _strides(weight) for other in others):
                    raise RuntimeError(
                        "params, grads, exp_avgs, and exp_avg_sqs must have same dtype, device, and layout"
                    )
        result = func(*args, **kwargs)
        if name != "aten::_local_scalar_dense":
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    gpu.put(leaf)
        return result


def _strides(tensor: Tensor) -> list[int]:
    """Those that tell where something lies: a dimension of one element has none."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]
