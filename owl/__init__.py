"""owl: lazy dataflow over column-major arrays.

Operations on arrays are recorded, not run; a device's threads compute them behind the script, fused where that helps,
and only what somebody can still ask for. Only what reads values waits: ``to_numpy``, ``float(x)``, ``wait_for_all``.

>>> import owl
>>> x = owl.randn([784, 256])
>>> w = owl.randn([10, 784], 0.0, 0.01)
>>> y = owl.conv.softmax(w * x)      # between arrays, * is the matrix product
>>> y.to_numpy().shape               # exchange with NumPy reverses the axes
(256, 10)
"""

import atexit as _atexit
import os as _os
from types import TracebackType as _TracebackType

from owl import _owl
from owl._owl import (
    DataError,
    DeviceError,
    DeviceInfo,
    DTypeError,
    Error,
    IndexError,
    NArray,
    NaNError,
    OutOfMemoryError,
    ShapeError,
    arange,
    bool_,
    concat,
    create_cpu_device,
    create_gpu_device,
    current_device,
    devices,
    empty_cache,
    float32,
    float64,
    from_dlpack,
    from_numpy,
    full,
    get_gpu_device_count,
    has_cuda,
    initialize,
    int32,
    memory_stats,
    ones,
    rand,
    randb,
    randn,
    seed,
    set_device,
    set_memory_limit,
    slice,
    stats,
    wait_for_all,
    zeros,
)

__version__ = _owl.__version__

_owl.set_package_folder(_os.path.dirname(__file__) + _os.sep)
_atexit.register(_owl.leave)

from owl import conv, elewise  # noqa: E402  (after the engine is set up)


class device:
    """``with owl.device(id):`` computes what the block records on that device, then returns to the one before.

    It may be entered again, also while it is active. DeviceError: there is no such device.
    """

    def __init__(self, id: int) -> None:
        self.id = id
        self._before: list[int] = []

    def __enter__(self) -> "device":
        before = current_device()
        set_device(self.id)
        self._before.append(before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: _TracebackType | None
    ) -> None:
        set_device(self._before.pop())

    def __repr__(self) -> str:
        return f"owl.device({self.id})"


# IndexError and slice are left out: a star import should not replace Python's own.
__all__ = [
    "DTypeError",
    "DataError",
    "DeviceError",
    "DeviceInfo",
    "Error",
    "NArray",
    "NaNError",
    "OutOfMemoryError",
    "ShapeError",
    "arange",
    "bool_",
    "concat",
    "conv",
    "create_cpu_device",
    "create_gpu_device",
    "current_device",
    "device",
    "devices",
    "elewise",
    "empty_cache",
    "float32",
    "float64",
    "from_dlpack",
    "from_numpy",
    "full",
    "get_gpu_device_count",
    "has_cuda",
    "initialize",
    "int32",
    "memory_stats",
    "ones",
    "rand",
    "randb",
    "randn",
    "seed",
    "set_device",
    "set_memory_limit",
    "stats",
    "wait_for_all",
    "zeros",
]
