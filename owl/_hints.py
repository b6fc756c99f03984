"""Hints for names that NumPy, PyTorch, MLX and others have and owl lacks or spells otherwise: what to write instead.

Used when a name was not found: by ``__getattr__`` of the modules, and for arrays by _Hint. In a hint, text between
backquotes is code that runs, given arrays x and y of shape [3, 4], a matrix w [2, 3], a NumPy array ``a`` and so on
(tests/python/test_hints.py runs all of it).
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

_GRADIENTS = ("gradients are values, of a function, `owl.grad(lambda x: owl.square(x).sum())(x)`, or of what was recorded in "
              "a `owl.Tape()` block, by its gradient(loss, [w, b])")
_LAYERS = "layers and losses are in owl.nn, optimizers in owl.optim: `owl.nn.Linear(3, 4)`, `owl.nn.mse(x, y)`, `owl.optim.Adam()`"
_IMMUTABLE = "arrays never change; build a new one and give it the name: `x += y`, `owl.where(mask, value, x)`"
_DTYPES = 'owl has bool, uint8, int32, int64, float16, bfloat16, float32 and float64: `x.astype("int32")`, `owl.zeros([3, 4], dtype=owl.float64)`'
_LAYOUT = "owl decides how a value lies in memory; `x.to_numpy()` is in C order, axes reversed"
_COMPLEX = "owl has no complex numbers; every array is real"
_MADE = "`owl.from_numpy(a)` makes an array of a NumPy array, a list or a number; it reverses the axes"
_DEVICE = "`x.copy_to(device)` copies a value to the device with this id; `owl.devices()` lists them"
_GPU = "`owl.has_cuda()` tells whether there is a GPU, owl.create_gpu_device(0) opens it, `owl.set_device(device)` chooses it"
_OWN = "`owl.op(function)` makes a function over NumPy arrays an operation"
_JOIN = "`owl.concat([x, y], axis)`"
_VIEW = "`x.reshape(shape)`"
_PRODUCT = "the product of two matrices is `w * x`, or `w @ x`"
_WAIT = "owl computes without being asked; `x.wait_for_eval()` waits for one value, `owl.wait_for_all()` for all"
_BOOLS = "of bools and integers `(x > 0) & (y > 0)` is and, `(x > 0) | (y > 0)` is or, `(x > 0) ^ (y > 0)` is xor, `~mask` is not"
_RANDOM = "`owl.rand(shape, low, high)`, `owl.randn(shape, mu, sigma)`, `owl.randb(shape, prob)`, `owl.seed(n)`"
_GATHER = "an index is an integer or a slice, `x[1]`, `x[:, 1:3]`; for arrays or lists of indices `owl.take(x, [0, 2], axis)`"
_BROADCAST = "operations broadcast axes of length 1; `x + owl.zeros(shape)` has the full shape"
_EINSUM = "owl has products of two matrices, `w * x`, and of many, `owl.matmul(w, x)`; reshape and transpose first"
_PRINT = "values are printed as NumPy prints them: `np.set_printoptions(precision=4)`"
_THREADS = "the environment variable OWL_NUM_THREADS sets the number of threads before owl is imported"
_LOSS = ("losses are functions: `owl.nn.mse(x, y)`, `owl.nn.softmax_cross_entropy(x, y)`, `owl.nn.nll(x, y)`, `owl.nn.l1(x, y)`, "
         "`owl.nn.binary_cross_entropy(x, y)`")
_NAN_MEAN = "owl.where(owl.isnan(x), 0.0, x).sum(axis) / (x == x).sum(axis)"
_NAN_VAR = f"owl.where(owl.isnan(x), 0.0, (x - {_NAN_MEAN}) ** 2).sum(axis) / (x == x).sum(axis)"
_HUBER = "`owl.nn.huber(x, y)`"
_POOL_1D = "an image of height 1 has one axis to pool along: "
_DROPOUT = "`owl.nn.Dropout(0.5)`; as a function `owl.multiply(x, owl.randb(x.shape, prob) / prob)`, where prob is the probability to keep an element, 1 - p of PyTorch"
_ALGEBRA = "linear algebra goes through NumPy: `owl.from_numpy(np.linalg.inv(square.to_numpy()))`, where the axes are reversed"
_PRECISION = '`owl.set_matmul_precision(precision)`, where precision is "float32", "tf32" or "bfloat16"'
_DENSE = "owl has no sparse arrays; every array is dense"

# Names, in groups that share a hint.
_GROUPS = {
    # arrays, types, values
    "FloatTensor LongTensor DoubleTensor IntTensor BoolTensor": _MADE,
    "array asarray asanyarray tensor as_tensor asarray_chkfinite constant Variable as_array fromlist": _MADE,
    "ascontiguousarray asfortranarray frombuffer fromiter": _MADE,
    "Tensor ndarray array_type": "the class of arrays is owl.NArray; " + _MADE,
    "numpy asnumpy": "`x.to_numpy()`, or `np.asarray(x)`",
    "get": "`x.to_numpy()`",
    "cpu": "`x.to_numpy()` is the value in host memory, `x.copy_to(0)` the array on device 0, a CPU device",
    "cuda gpu xpu mps": _DEVICE + "; " + _GPU,
    "to": 'for a device `x.copy_to(device)`, for a type `x.astype("float64")`',
    "device_put to_device": _DEVICE,
    "float float_ single": 'float32 is `x.astype("float32")`, as a type owl.float32',
    "double": 'float64 is `x.astype("float64")`, as a type owl.float64',
    "half": 'float16 is `x.astype("float16")`, as a type owl.float16',
    "bfloat16": 'bfloat16 is `x.astype("bfloat16")`, as a type owl.bfloat16',
    "long longlong intp": 'int64 is `x.astype("int64")`, as a type owl.int64',
    "byte ubyte": 'uint8 is `x.astype("uint8")`, as a type owl.uint8',
    "int int_ intc": 'int32 is `x.astype("int32")`, as a type owl.int32',
    "bool bool_": 'the type is owl.bool_, the conversion `x.astype("bool")`',
    "short char int8 int16 uint16 uint32 uint64": _DTYPES,
    "str_ bytes_ object_ string_ unicode_ longdouble float128 float8_e4m3fn float8_e5m2 uint ushort ulong uintp dtype Dtype astype": _DTYPES,
    "complex complex_ complex64 complex128 cfloat cdouble real imag conj conjugate angle is_complex iscomplex": _COMPLEX,
    "type": 'the type is `x.dtype`, a conversion `x.astype("int32")`',
    "type_as": "`x.astype(y.dtype)`",
    "dim ndimension": "`x.ndim`",
    "numel nelement": "`x.size`",
    "Size": "`x.shape` is a list of the lengths",
    "itemsize element_size": "`x.dtype.itemsize`",
    "strides stride data data_ptr storage storage_offset untyped_storage flags base ctypes is_contiguous": _LAYOUT,
    "contiguous is_pinned pin_memory layout memory_format": _LAYOUT,
    "clone copy deepcopy": "arrays never change, so `x` needs no copy; `x.to_numpy()` is a copy that may be changed",
    "tobytes dump": "`x.to_numpy().tobytes()`",
    "is_cuda is_cpu is_mps get_device": "`x.device` is the id of the device",
    "is_tensor isTensor": "`isinstance(x, owl.NArray)`",
    "is_floating_point": '`x.dtype.kind == "f"`',
    "newaxis": "`x[..., None]`",
    "pi e inf nan euler_gamma NINF PINF NAN Inf Infinity": "Python has it: `math.pi`, `math.e`, `math.inf`, `math.nan`",
    "finfo iinfo": "NumPy has it: `np.finfo(x.dtype)`",
    "set_printoptions get_printoptions printoptions": _PRINT,
    "set_default_dtype get_default_dtype set_default_tensor_type": "types are given at each call: `owl.zeros(shape, dtype)`",
    # making
    "empty empty_like": "memory is never left uninitialised: `owl.zeros(shape)`, `owl.zeros_like(x)`",
    "new new_zeros new_ones new_full new_empty new_tensor": "`owl.zeros(shape)`, `owl.zeros_like(x)`",
    "identity": "`owl.eye(n)`",
    "range": "`owl.arange(n)`",
    "logspace geomspace": "`owl.exp(owl.linspace(low, high, n))`",
    "tri tril triu diag diagflat diagonal trace": "`owl.multiply(square, owl.eye(n))` keeps the diagonal; a mask works for triangles",
    "random": _RANDOM,
    "uniform random_sample rand_like": "`owl.rand(shape, low, high)`",
    "normal standard_normal randn_like gaussian": "`owl.randn(shape, mu, sigma)`",
    "bernoulli binomial": "`owl.randb(shape, prob)`",
    "randint integers randint_like random_integers": '`owl.floor(owl.rand(shape, 0, 10)).astype("int32")`',
    "manual_seed set_seed random_seed default_rng RandomState Generator key": "`owl.seed(n)`",
    "get_rng_state set_rng_state": "`owl.random_state()`, `owl.set_random_state(owl.random_state())`",
    "randperm permutation shuffle choice": "draw indices with NumPy, and take the data: `owl.from_numpy(a[rng.permutation(len(a))])`",
    "dropout": _DROPOUT,
    # joining, cutting, shapes
    "cat concatenate hstack vstack dstack column_stack row_stack append block": _JOIN,
    "split_with_sizes array_split chunk tensor_split vsplit hsplit dsplit": "`owl.split(x, 1, axis)` into so many equal parts, or `owl.split(x, [1, 2], axis)` at places",
    "unbind unstack narrow select": "`owl.slice(x, axis, offset, count)`, or `x[1:3]`",
    "gather index_select take_along_axis take_along_dim choose compress extract": _GATHER,
    "masked_select nonzero argwhere flatnonzero unique": "its size depends on values: go through NumPy, `np.nonzero(x.to_numpy())`",
    "masked_fill": "`owl.where(mask, value, x)`",
    "squeeze": "`x.reshape(shape)`, or an index for the axis of length 1, `x[0]`",
    "unsqueeze expand_dims": "`x[None]` puts an axis of length 1 in front, `x[..., None]` behind",
    "flatten ravel": "`x.reshape([-1])`",
    "view resize unflatten as_strided atleast_1d atleast_2d atleast_3d": _VIEW,
    "view_as reshape_as": "`x.reshape(y.shape)`",
    "permute permute_dims moveaxis swapaxes swapdims movedim rollaxis": "`x.transpose([1, 0])`: axis i of the result is axis axes[i]",
    "t mT mH H adjoint matrix_transpose": "`x.T`",
    "broadcast_to expand expand_as broadcast_arrays broadcast_tensors broadcast_shapes": _BROADCAST,
    "repeat_interleave": "`owl.repeat(x, 2, axis)`",
    "fliplr flipud": "`owl.flip(x, axis)`",
    # elementwise
    "add": "`x + y`", "sub subtract": "`x - y`", "rsub": "`y - x`", "neg negative": "`-x`", "positive": "`x`",
    "mul": "`owl.multiply(x, y)`; with a number, `2 * x`",
    "div divide true_divide": "`x / y`", "pow power float_power": "`x ** y`", "reciprocal": "`1 / x`",
    "absolute fabs": "`owl.abs(x)`",
    "cbrt": "`owl.multiply(owl.sign(x), owl.abs(x) ** (1 / 3))`",
    "hypot": "`owl.sqrt(x ** 2 + y ** 2)`",
    "deg2rad radians": "`x * (math.pi / 180)`", "rad2deg degrees": "`x * (180 / math.pi)`",
    "rint around": "`owl.round(x)`", "fix": "`owl.trunc(x)`",
    "floor_divide": "`x // y`", "mod remainder": "`x % y`", "divmod": "`x // y` and `x % y`",
    "frac": "`x - owl.trunc(x)`", "modf": "`x - owl.trunc(x)` and `owl.trunc(x)`",
    "clamp hardtanh": "`owl.clip(x, low, high)`",
    "clamp_min": "`owl.maximum(x, low)`", "clamp_max": "`owl.minimum(x, high)`",
    "fmax": "`owl.where(owl.isnan(x), y, owl.where(owl.isnan(y), x, owl.maximum(x, y)))`",
    "fmin": "`owl.where(owl.isnan(x), y, owl.where(owl.isnan(y), x, owl.minimum(x, y)))`",
    "lerp": "`x + 0.5 * (y - x)`",
    "addcmul": "`x + owl.multiply(x, y)`", "addcdiv": "`x + x / y`", "ldexp": "`owl.multiply(x, 2 ** y)`",
    "equal eq": "`x == y`; for the whole array `bool((x == y).min())`",
    "array_equal array_equiv": "`bool((x == y).min())`",
    "not_equal ne": "`x != y`", "greater gt": "`x > y`", "greater_equal ge": "`x >= y`", "less lt": "`x < y`",
    "less_equal le": "`x <= y`",
    "allclose isclose": "`bool((abs(x - y) <= 1e-5).min())`",
    "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor invert": _BOOLS,
    "is_nonzero": "`bool(x[0, 0])` for one element",
    "isposinf": "`x == math.inf`", "isneginf": "`x == -math.inf`", "signbit": "`x < 0`", "sgn": "`owl.sign(x)`",
    "nan_to_num": "`owl.where(owl.isnan(x), 0.0, x)`",
    "logaddexp": "`x + owl.softplus(y - x)`", "heaviside": "`owl.where(x > 0, 1.0, 0.0)`",
    "logit": "`owl.log(x / (1 - x))`", "xlogy": "`owl.multiply(x, owl.log(y))`", "erfc": "`1 - owl.erf(x)`",
    "copysign": "`owl.multiply(owl.sign(y), owl.abs(x))`", "sinc": "`owl.sin(math.pi * x) / (math.pi * x)`",
    "arccos": "`owl.acos(x)`", "arcsin": "`owl.asin(x)`", "arctan": "`owl.atan(x)`", "arctan2": "`owl.atan2(x, y)`",
    "asinh arcsinh": "`owl.multiply(owl.sign(x), owl.log(owl.abs(x) + owl.sqrt(x ** 2 + 1)))`",
    "acosh arccosh": "`owl.log(x + owl.sqrt(x ** 2 - 1))`", "atanh arctanh": "`owl.log1p(2 * x / (1 - x)) / 2`",
    "vectorize frompyfunc apply_along_axis apply_over_axes fromfunction map_ apply_ custom_function": _OWN,
    # activations
    "swish": "`owl.silu(x)`", "hardsigmoid": "`owl.hard_sigmoid(x)`", "hardswish": "`owl.hard_swish(x)`",
    "relu6": "`owl.clip(x, 0, 6)`", "prelu": "`owl.leaky_relu(x, slope)`", "celu": "`owl.elu(x, 1.0)`",
    "selu": "`1.0507009873554805 * owl.elu(x, 1.6732632423543772)`", "softsign": "`x / (1 + owl.abs(x))`",
    "softshrink": "`x - owl.clip(x, -0.5, 0.5)`",
    "logsigmoid log_sigmoid": "`-owl.softplus(-x)`", "softmin": "`owl.conv.softmax(-x)`",
    "step": "`owl.where(x > 0, 1.0, 0.0)`",
    # reductions
    "amax reduce_max": "`x.max(axis)`", "amin reduce_min": "`x.min(axis)`", "aminmax": "`x.min(axis)` and `x.max(axis)`",
    "average reduce_mean": "`x.mean(axis)`", "reduce_sum": "`x.sum(axis)`",
    "std_mean": "`x.std(axis)` and `x.mean(axis)`", "var_mean": "`x.var(axis)` and `x.mean(axis)`",
    "prod": "`x.prod(axis)`", "cumsum": "`x.cumsum(axis)`",
    # owl's own reductions propagate NaN
    "nansum": "`owl.where(owl.isnan(x), 0.0, x).sum(axis)`", "nanmean": f"`{_NAN_MEAN}`",
    "nanmax": "`owl.where(owl.isnan(x), -math.inf, x).max(axis)`", "nanmin": "`owl.where(owl.isnan(x), math.inf, x).min(axis)`",
    "nanargmax": "`owl.where(owl.isnan(x), -math.inf, x).argmax(axis)`",
    "nanargmin": "`owl.where(owl.isnan(x), math.inf, x).argmin(axis)`",
    "nanvar": f"`{_NAN_VAR}`", "nanstd": f"`({_NAN_VAR}) ** 0.5`",
    "nanprod": "`owl.where(owl.isnan(x), 1.0, x).prod(axis)`", "nancumsum": "`owl.where(owl.isnan(x), 0.0, x).cumsum(axis)`",
    "count_nonzero": "`(x != 0).sum(axis)`; `x.count_zero()` counts zeros",
    "inv pinv solve eigh inverse pinverse": _ALGEBRA,
    "norm linalg dist": "the norm is `(x ** 2).sum(axis) ** 0.5`; for other linear algebra go through NumPy: `np.linalg.inv(square.to_numpy())`",
    "ptp": "`x.max(axis) - x.min(axis)`",
    # products
    "mm": _PRODUCT, "mv": _PRODUCT + "; a vector is a matrix of one column",
    "dot": "`owl.draw(x)` draws the graph; " + _PRODUCT,
    "bmm": "products of the leading two axes are `owl.matmul(w, x)`",
    "einsum tensordot kron multi_dot chain_matmul baddbmm": _EINSUM,
    "addmm linear Linear": "`w * x + b`", "outer ger": "`x.reshape([-1, 1]) * y.reshape([1, -1])`",
    "inner vdot vecdot": "`owl.multiply(x, y).sum()`",
    # gradients, layers, data
    "backward grad requires_grad requires_grad_ retain_grad is_leaf grad_fn register_hook": _GRADIENTS,
    "autograd value_and_grad vjp jvp jacobian hessian GradientTape": _GRADIENTS,
    "no_grad enable_grad inference_mode is_grad_enabled set_grad_enabled": (
        "owl notes operations only inside a block of `owl.Tape()`: there is nothing to switch off elsewhere"),
    "detach stop_gradient detach_": "`owl.stop_gradient(x)`",
    "nn optim functional F layers Module Sequential losses optimizers keras links": _LAYERS,
    "ModuleList ModuleDict": "a list or dict of modules is an attribute like any other",
    "Parameter": "an attribute of a module that is an NArray is a parameter",
    "SGD Adam AdamW RMSprop AdaGrad Adagrad Lion": "`owl.optim.SGD(0.1)`, `owl.optim.Adam()`",
    "lr_scheduler StepLR MultiStepLR ExponentialLR CosineAnnealingLR OneCycleLR LambdaLR LearningRateScheduler schedules": (
        "a schedule, or any function of the step, is given as lr: `owl.optim.SGD(owl.optim.cosine(0.1, 1000))`"),
    "ReduceLROnPlateau": "a callback's on_epoch(trainer, row) sets trainer.optimizer.lr",
    "clip_grad_norm_ clip_grad_norm clip_by_global_norm GradientClipping": '`owl.optim.clip_norm({"w": w}, 1.0)` gives the gradients and their norm',
    "Dense": "`owl.nn.Linear(3, 4)`, then an activation such as `owl.nn.ReLU()`",
    "InputLayer Input": "the first layer finds out its size if it is None: `owl.nn.Linear(None, 4)`",
    "ModelCheckpoint BackupAndRestore snapshot": '`owl.train.Checkpoint("run.npz")` or `owl.train.BestCheckpoint("best.npz")`',
    "TerminateOnNaN FailOnNonNumber": "`owl.train.StopOnNaN()`",
    "CSVLogger LogReport": '`owl.train.CSVLog("log.csv")`',
    "SummaryWriter": "owl.train.TensorBoard(folder)",
    "extensions PrintReport ProgressBar Evaluator StandardUpdater": "fit shows progress, its argument validation evaluates, its callbacks do the rest",
    "LSTM GRU RNN LSTMCell GRUCell RNNCell": "`owl.nn.LSTM(3, 4)`, `owl.nn.GRU(3, 4)`, `owl.nn.RNN(3, 4)`; a cell is a call with one step",
    "Transformer MultiheadAttention": "`owl.nn.MultiHeadAttention(4, 2)`",
    "Identity": "it returns `x` itself",
    "Flatten": "`owl.nn.Flatten()`; `image.reshape([-1, image.shape[-1]])` keeps the last axis, the minibatch",
    "embedding Embedding": "`owl.nn.Embedding(4, 3)`; as a function `owl.take(w, labels, 1)`, which picks columns",
    "scaled_dot_product_attention": "`y * owl.conv.softmax(y.T * x / x.shape[0] ** 0.5)` for queries x and keys and values y in columns",
    "Conv2d conv2d conv_general Conv2D": "`owl.nn.Conv2d(3, 5, 3)`; as a function `owl.conv.Convolver(pad_h=1, pad_w=1).ff(image, filters, bias)`",
    "MaxPool2d max_pool2d MaxPool2D": "`owl.nn.MaxPool2d(2)`; as a function `owl.conv.Pooler(2, 2, 2, 2).ff(image)`",
    "AvgPool2d avg_pool2d": "`owl.nn.AvgPool2d(2)`; as a function `owl.conv.Pooler(2, 2, 2, 2, op=owl.conv.pool_op.avg).ff(image)`",
    "max_pool1d": _POOL_1D + "`owl.conv.Pooler(1, 2, 1, 2).ff(image)`",
    "avg_pool1d": _POOL_1D + "`owl.conv.Pooler(1, 2, 1, 2, op=owl.conv.pool_op.avg).ff(image)`",
    "adaptive_avg_pool2d": "`owl.nn.GlobalAvgPool2d()`, or `image.mean([0, 1])` for one value a channel", "adaptive_max_pool2d": "`image.max([0, 1])` for one value a channel",
    "local_response_norm": "`owl.nn.LocalResponseNorm(5)`; as a function `owl.conv.Lrner(5, 1e-4, 0.75).ff(image, image)`",
    "BatchNorm1d BatchNorm2d BatchNorm3d": "`owl.nn.BatchNorm(3)`; owl.batch_norm is the function of it",
    "group_norm instance_norm normalize": "`(x - x.mean(axis)) / (x.var(axis) + 1e-5) ** 0.5`; as layers `owl.nn.BatchNorm(3)`, `owl.nn.LayerNorm(3)`, `owl.nn.GroupNorm(1, 3)`",
    "rms_norm": "`x / ((x ** 2).mean(axis) + 1e-5) ** 0.5`",
    "mse_loss cross_entropy nll_loss l1_loss binary_cross_entropy kl_div BCELoss": _LOSS,
    "smooth_l1_loss huber_loss": _HUBER,
    "binary_cross_entropy_with_logits BCEWithLogitsLoss": "`owl.nn.binary_cross_entropy(x, y)`",
    "softmax_cross_entropy": _LOSS,
    "utils DataLoader Dataset TensorDataset Loader ArrayDataset": "`owl.data.Loader(owl.data.ArrayDataset(a), 2)` gives minibatches of NumPy arrays, samples first",
    "Trainer fit Updater training": '`owl.train.Trainer(owl.nn.Linear(4, 3), "softmax_cross_entropy", "adam")` trains a model: fit, evaluate, save',
    # saving, running, devices
    "savez savez_compressed save_safetensors save_gguf savetxt": '`owl.save(path, {"w": w})`',
    "loadtxt genfromtxt fromfile memmap": "read with NumPy, then `owl.from_numpy(a)`",
    "eval async_eval synchronize block_until_ready compute realize wait": _WAIT,
    "compile jit vmap pmap disable_compile enable_compile export": "owl fuses operations without being asked; `print(owl.explain(lambda: x + y))` shows how",
    "is_available cuda_is_available": "`owl.has_cuda()`", "device_count": "`owl.get_gpu_device_count()`",
    "device_info": "`owl.devices()`",
    "default_device set_default_device get_default_device default_stream set_default_stream": "`owl.set_device(device)`, or a block with owl.device(id)",
    "stream Stream new_stream backends metal Device DeviceType": _GPU,
    "get_num_threads set_num_threads": _THREADS,
    "get_cache_memory reset_peak_memory get_active_memory get_peak_memory memory_allocated max_memory_allocated": "`owl.memory_stats()`",
    "set_cache_limit clear_cache": "`owl.empty_cache()`, `owl.set_memory_limit(None)`",
    "set_float32_matmul_precision": _PRECISION,
    "get_float32_matmul_precision": "`owl.get_matmul_precision()`",
    "amp autocast GradScaler": "every value keeps its type; for products on a GPU " + _PRECISION,
    "is_sparse is_sparse_csr to_dense to_sparse sparse_dim": _DENSE,
    "ma": "owl has no masked arrays: `owl.where(mask, x, value)`", "polynomial": "NumPy has it: np.polynomial",
    "typing": "the type of arrays is owl.NArray",
    "use_deterministic_algorithms": "nothing to switch on: the same seed and the same calls give the same bits",
    "fill put itemset setflags setfield partition index_put slice_update at index_copy index_fill scatter": _IMMUTABLE,
    "scatter_add index_add": "`owl.put_add(x, [0, 2], y[:2], 0)` is a copy of x with values added there",
    "copyto putmask place fill_diagonal put_along_axis": _IMMUTABLE,
}  # fmt: skip

HINTS = {name: hint for names, hint in _GROUPS.items() for name in names.split()}

# Further names of PyTorch and MLX without a counterpart in owl. NumPy's names are looked up in NumPy itself.
ELSEWHERE = set("""
addbmm addmv addr bartlett_window bincount blackman_window block_diag block_masked_mm bucketize cartesian_prod
cdist cholesky cholesky_inverse cholesky_solve clear_streams combinations compiled_with_cxx11_abi conv1d conv3d
conv_transpose1d conv_transpose2d conv_transpose3d convolve corrcoef cosine_similarity cov cross cummax cummin cumprod
cumulative_trapezoid default_generator dequantize det diag_embed diff digamma dsmm eig einops erfinv
exponential fake_quantize_per_channel_affine fast fft finfo fold frexp from_file fromDLpack gather_mm gather_qmm gcd
geometric geqrf glu gradient gumbel_softmax hadamard_transform hamming_window hann_window hardshrink histc histogram
histogramdd hub i0 igamma igammac ifft imag index index_reduce initial_seed interpolate irfft is_deterministic
isin isnan_ isreal issubdtype istft jacfwd jacrev kaiser_window kthvalue lcm left_shift lgamma lobpcg logcumsumexp
logdet lstsq lu lu_solve masked_scatter matrix_exp matrix_power matrix_rank median meshgrid mode msort multigammaln
multinomial multiprocessing mvlgamma nanmedian nanquantile nextafter onnx orgqr ormqr overrides package
pixel_shuffle poisson polar polygamma profiler promote_types qr quantile quantize quantized_matmul renorm
result_type rfft right_shift rot90 scatter_reduce searchsorted set_flush_denormal slogdet sparse sparse_coo_tensor
special stft svd svd_lowrank swapdims symeig tanhshrink tensorinv tensorsolve testing threshold trapezoid trapz
triangular_solve tril_indices triu_indices truncated_normal unfold unique_consecutive vander vander version
vision view_as_complex view_as_real zeta tree_map tree_flatten tree_unflatten export_function import_function
""".split())

_NO_METHOD = "an NArray has no {name}: {hint}"
_NO_NAME = "{module} has no {name}: {hint}"


def of_array(name: str) -> AttributeError | None:
    """The error for ``x.name``, or None if no library known here has the name."""
    hint = HINTS.get(name) or _function(name) or _elsewhere(name) or _in_place(name)
    return _error(_NO_METHOD.format(name=name, hint=hint), name) if hint else None


def of_module(module: str, name: str) -> AttributeError:
    """The error for ``owl.name``, ``owl.elewise.name`` or ``owl.conv.name``."""
    hint = None
    if not name.startswith("_"):
        hint = _for_training(module, name) or _of_function(module, name) or _in_place(name) or _layer(name)
    if hint:
        return _error(_NO_NAME.format(module=module, name=name, hint=hint), name)
    # Python adds "Did you mean" with a name of similar spelling.
    return AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules[module])


def _of_function(module: str, name: str) -> str | None:
    own = _function(name) if module != "owl" else _conv(name)
    return own or HINTS.get(name) or _method(name) or _elsewhere(name)


def _for_training(module: str, name: str) -> str | None:
    """The hint for a name that owl.nn or owl.optim has."""
    import owl

    for part in (owl.nn, owl.optim, owl.train, owl.data):
        for own in part.__all__:
            found = getattr(part, own)
            same = own == name and part.__name__ != module
            if callable(found) and (same or (own != name and name[0].isupper() and own.lower() == name.lower())):
                return f"`{part.__name__}.{own}({_arguments(found)})`"
    return None


_CODE = "`[^`]*`"
# The start of a hint that is only code (one piece or several), or code followed by something other than a verb.
_CODE_ALONE = re.compile(rf": (?={_CODE}(?:(?:, or|,| or| and) {_CODE})*(?:$|[;:]| for |, (?!or `|`)))")


def _worded(hint: str) -> str:
    return _CODE_ALONE.sub(": write ", hint)


def _error(text: str, name: str) -> AttributeError:
    # Without obj=: Python would add "Did you mean" with a name of similar spelling.
    return AttributeError(_worded(text).replace("`", ""), name=name)


def _arguments(function: Any) -> str:
    """The parameters as declared, without self: "x, low, high", "x, slope=0.01"."""
    parameters = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    parts = []
    for each in parameters:
        star = "*" if each.kind is each.VAR_POSITIONAL else ""
        default = f"owl.conv.{each.default}" if isinstance(each.default, enum.Enum) else repr(each.default)
        default = f"owl.nn.init.{each.default.__name__}" if inspect.isfunction(each.default) else default
        parts.append(star + each.name + ("" if each.default is each.empty else f"={default}"))
    return ", ".join(parts)


def _is_function(name: str) -> bool:
    import owl

    found = vars(owl).get(name)
    return callable(found) and not isinstance(found, type) and not name.startswith("_")


def _function(name: str) -> str | None:
    import owl

    return f"`owl.{name}({_arguments(vars(owl)[name])})`" if _is_function(name) else _conv(name)


def _conv(name: str) -> str | None:
    import owl

    if name in owl.conv.__all__:
        found = getattr(owl.conv, name)
        return f"owl.conv.{name}" if isinstance(found, type) else f"`owl.conv.{name}({_arguments(found)})`"
    return None


def _method(name: str) -> str | None:
    import owl

    if name.startswith("_") or not hasattr(owl.NArray, name):
        return None
    found = getattr(owl.NArray, name)
    return f"it is a method of arrays, `x.{name}({_arguments(found)})`" if callable(found) else f"`x.{name}`"


def _in_place(name: str) -> str | None:
    """The hint for PyTorch's relu_ and others: names that are known without the underscore."""
    base = name[:-1]
    if not name.endswith("_") or not (base in _IN_PLACE_ALONE or _of_function("", base)):
        return None
    function = _function(base)
    return "arrays never change; give the name to a new one: " + f"`x = {function[1:]}" if function else _IMMUTABLE


_IN_PLACE_ALONE = {"zero", "set", "map", "log_normal"}


def _layer(name: str) -> str | None:
    """The hint for PyTorch's classes, which are named like its functions: LeakyReLU, MSELoss, BatchNorm1d."""
    if not name[:1].isupper():
        return None
    plain = name.lower()
    spellings = {plain, plain.removesuffix("loss"), re.sub("[123]d$", "", plain)}
    for known in (*_functions(), *HINTS):
        if known.replace("_", "") in spellings and known != name:
            return _function(known) or HINTS[known]
    return None


def _functions() -> list[str]:
    import owl

    return [*filter(_is_function, vars(owl)), *owl.conv.__all__]


def _elsewhere(name: str) -> str | None:
    import numpy as np

    found = vars(np).get(name, getattr(np.ndarray, name, None))
    if isinstance(found, type) and issubclass(found, np.generic):
        return _DTYPES
    if callable(found) and not isinstance(found, type) and name in vars(np):
        return f"go through NumPy, owl.from_numpy(np.{name}(x.to_numpy())), where the axes are reversed; or {_OWN}"
    if found is not None:
        return f"NumPy has it: np.{name}" if name in vars(np) else f"NumPy's arrays have it: x.to_numpy().{name}"
    return f"compose it from owl's functions; {_OWN}" if name in ELSEWHERE else None


class _Hint:
    """A descriptor in the base class of NArray for a name that arrays lack: raises the error with the hint.

    A ``__getattr__`` of the class would do the same, but make each method call slower by half and ``numpy.asarray(x)``
    several times slower: Python's fast path for methods and protocols needs a class without ``__getattr__``.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        raise of_array(self.name) or AttributeError(f"'owl.NArray' object has no attribute {self.name!r}")


# Python's operators that arrays lack, and the function whose hint applies.
_OPERATORS = {"divmod": ("divmod", "divmod")}


def _refused(sign: str, hint: str, other_side: str) -> Callable[..., Any]:
    """A method in the base class of NArray for an operator that arrays lack: divmod(x, y), or divmod(y, x)."""

    def refuse(self: Any, *others: Any) -> Any:
        import numpy as np

        import owl

        known = (owl.NArray, int, float, complex, str, bytes, list, tuple, np.ndarray, np.generic)
        if any(hasattr(type(other), other_side) and not isinstance(other, known) for other in others):
            return NotImplemented  # the other operand may define the operator
        raise TypeError(_worded(f"an NArray has no operator {sign}: {hint}").replace("`", ""))

    return refuse


class ClassOfArrays(type):
    """The metaclass of NArray: hides the hints from ``dir``, completion and help."""

    def __dir__(cls) -> list[str]:
        hints = vars(cls.__base__)
        return [name for name in super().__dir__() if not isinstance(hints.get(name), (_Hint, FunctionType))]


def prepare() -> None:
    """Adds the hints to the base class of NArray, once the package is complete."""
    import numpy as np

    import owl

    base: Any = owl.NArray.__base__
    methods = {name for name in vars(owl.NArray) if not name.startswith("_")}
    names = {*_functions()} | HINTS.keys() | ELSEWHERE | {*vars(np)} | {*dir(np.ndarray)}
    in_place = {f"{name}_" for name in names | methods | _IN_PLACE_ALONE if not name.endswith("_")}
    for name in names | in_place:
        if not name.startswith("_") and name not in vars(owl.NArray):
            setattr(base, name, _Hint(name))
    for name, (sign, function) in _OPERATORS.items():
        setattr(base, f"__{name}__", _refused(sign, HINTS[function], f"__r{name}__"))
        setattr(base, f"__r{name}__", _refused(sign, HINTS[function], f"__{name}__"))
