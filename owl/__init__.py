"""owl: lazy dataflow over column-major arrays.

Operations on arrays are recorded, not run; a device's threads compute them while the script goes on, fused where that
is faster, and skip results that no name refers to. Only functions that read values wait: ``to_numpy``, ``float(x)``,
``print(x)``, ``wait_for_all``.

>>> import owl
>>> x = owl.randn([784, 256])
>>> w = owl.randn([10, 784], 0.0, 0.01)
>>> y = owl.conv.softmax(w * x)      # between arrays, * is the matrix product
>>> y.to_numpy().shape               # exchange with NumPy reverses the axes
(256, 10)
"""

import atexit as _atexit
import os as _os
import typing as _typing
from types import TracebackType as _TracebackType

from owl import _owl
from owl._owl import (
    DataError,
    DeviceError,
    DeviceInfo,
    DTypeError,
    Error,
    IndexError as IndexError,
    NArray,
    NaNError,
    OutOfMemoryError,
    ShapeError,
    all_reduce,
    arange,
    argsort,
    batch_norm,
    bfloat16,
    bool_,
    concat,
    create_cpu_device,
    create_gpu_device,
    current_device,
    devices,
    empty_cache,
    eye,
    flip,
    float16,
    float32,
    float64,
    from_cupy,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    get_gpu_device_count,
    get_matmul_precision,
    has_cuda,
    initialize,
    int32,
    int64,
    layer_norm,
    linspace,
    logsumexp,
    matmul,
    memory_stats,
    moments,
    one_hot,
    ones,
    ones_like,
    pad,
    put_add,
    rand,
    randb,
    randn,
    random_state,
    repeat,
    roll,
    seed,
    set_device,
    set_matmul_precision,
    set_memory_limit,
    set_random_state,
    slice as slice,
    sort,
    split,
    stack,
    stats,
    stop_gradient,
    take,
    tile,
    topk,
    uint8,
    wait_for_all,
    zeros,
    zeros_like,
)

__version__ = _owl.__version__

_owl.set_package_folder(_os.path.dirname(__file__) + _os.sep)
_atexit.register(_owl.leave)

from owl import conv, elewise  # noqa: E402  (needs the engine's setup above)
from owl._gradients import Tape, checkpoint, grad, value_and_grad  # noqa: E402
from owl._user_op import op  # noqa: E402
from owl.elewise import *  # noqa: E402, F403  (owl.exp is owl.elewise.exp, and so on)
from owl.elewise import abs as abs, round as round  # noqa: E402
from owl.files import load, load_metadata, save  # noqa: E402
from owl.inspection import (  # noqa: E402
    Plan,
    PlannedTask,
    dot as dot,
    draw,
    dump,
    dump_on_signal,
    eager,
    explain,
    profile,
    trace_nan,
)

from owl import _hints  # noqa: E402

_hints.prepare()

if _typing.TYPE_CHECKING:
    from owl import data as data, distributed as distributed, nn as nn, optim as optim, train as train
else:

    def __getattr__(name):
        if name in ("data", "distributed", "nn", "optim", "train"):  # imported at their first use: few programs download, not all train
            import importlib

            return importlib.import_module(f"owl.{name}")
        raise _hints.of_module("owl", name)


def get_cmake_dir() -> str:
    """The folder of the CMake package for C++ programs that use this owl: ``cmake -Dowl_DIR=...``, ``find_package(owl)``.

    Error: this owl was built in a checkout, where CMake installs the C++ files.
    """
    folder = _os.path.join(_os.path.dirname(__file__), "lib", "cmake", "owl")
    if not _os.path.isdir(folder):
        raise Error(
            f"get_cmake_dir: there is no {folder}: this owl was built in a checkout; "
            "cmake --install build --component cpp --prefix FOLDER installs the headers, libowl and the CMake package"
        )
    return folder


class device:
    """``with owl.device(id):`` makes this device current for the block, then restores the previous one.

    The same object may be entered again, also while it is active. DeviceError: there is no such device.
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


# Without IndexError, slice, abs and round: a star import should not replace Python's own.
__all__ = [
    "DTypeError",
    "DataError",
    "DeviceError",
    "DeviceInfo",
    "Error",
    "NArray",
    "NaNError",
    "OutOfMemoryError",
    "Plan",
    "PlannedTask",
    "ShapeError",
    "Tape",
    "acos",
    "all_reduce",
    "arange",
    "argsort",
    "asin",
    "atan",
    "atan2",
    "batch_norm",
    "bfloat16",
    "bool_",
    "ceil",
    "checkpoint",
    "clip",
    "concat",
    "conv",
    "cos",
    "cosh",
    "create_cpu_device",
    "create_gpu_device",
    "current_device",
    "device",
    "devices",
    "draw",
    "dump",
    "dump_on_signal",
    "eager",
    "elewise",
    "elu",
    "empty_cache",
    "erf",
    "exp",
    "exp2",
    "explain",
    "expm1",
    "eye",
    "flip",
    "float16",
    "float32",
    "float64",
    "floor",
    "fmod",
    "from_cupy",
    "from_dlpack",
    "from_numpy",
    "full",
    "full_like",
    "gelu",
    "get_cmake_dir",
    "get_gpu_device_count",
    "get_matmul_precision",
    "grad",
    "hard_sigmoid",
    "hard_swish",
    "has_cuda",
    "initialize",
    "int32",
    "isfinite",
    "isinf",
    "int64",
    "isnan",
    "leaky_relu",
    "layer_norm",
    "linspace",
    "ln",
    "load",
    "load_metadata",
    "log",
    "log10",
    "log1p",
    "log2",
    "logsumexp",
    "matmul",
    "maximum",
    "memory_stats",
    "minimum",
    "mish",
    "moments",
    "mult",
    "multiply",
    "one_hot",
    "ones",
    "ones_like",
    "op",
    "pad",
    "profile",
    "put_add",
    "rand",
    "randb",
    "randn",
    "random_state",
    "relu",
    "relu_back",
    "repeat",
    "roll",
    "rsqrt",
    "save",
    "seed",
    "set_device",
    "set_matmul_precision",
    "set_memory_limit",
    "set_random_state",
    "sigm",
    "sigm_back",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "softplus",
    "sort",
    "split",
    "sqrt",
    "square",
    "stack",
    "stats",
    "stop_gradient",
    "take",
    "tan",
    "tanh",
    "tanh_back",
    "tile",
    "topk",
    "trace_nan",
    "trunc",
    "uint8",
    "value_and_grad",
    "wait_for_all",
    "where",
    "zeros",
    "zeros_like",
]
