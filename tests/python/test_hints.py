"""Names of NumPy, PyTorch and MLX raise an AttributeError that says what to write, and the advice works."""

import builtins
import copy
import math
import pickle
import pydoc
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

import owl
from owl import _hints

TORCH = """abs absolute acos add addmm all allclose amax amin any arange argmax argmin argsort as_tensor asin atan atan2
baddbmm bernoulli bincount bmm broadcast_to bucketize cat cdist ceil chunk clamp clip clone complex concat conj cos cosh
count_nonzero cross cumprod cumsum deg2rad det diag diagonal diff dist div dot einsum empty empty_like eq equal erf erfc
erfinv exp exp2 expm1 eye fft flatten flip floor floor_divide fmax fmin fmod from_numpy full full_like gather ge
get_num_threads gradient gt hstack index_select inner inverse is_tensor isclose isfinite isinf isnan kron kthvalue
le lerp lgamma linalg linspace load log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor
logspace logsumexp lt manual_seed masked_fill masked_select matmul max maximum mean median meshgrid min minimum mm mode
movedim mul multinomial mv nan_to_num narrow ne neg nn no_grad nonzero norm normal numel ones ones_like optim outer
permute pinverse polar pow prod qr quantile rad2deg rand rand_like randint randn randn_like randperm real reciprocal
relu remainder repeat_interleave reshape roll round rsqrt save scatter searchsorted select set_default_dtype
set_num_threads set_printoptions sigmoid sign sin sinh softmax sort split sqrt square squeeze stack std sub sum svd
swapaxes t take tan tanh tensor tensordot tile topk trace transpose trapz tril triu trunc unbind unique unsqueeze var
vdot vstack where zeros zeros_like Tensor float32 float64 float16 bfloat16 int32 int64 int8 uint8 long double half
cuda mps device inference_mode enable_grad compile vmap utils set_float32_matmul_precision get_float32_matmul_precision
relu_ exp_ clamp_ abs_ sigmoid_ neg_ binary_cross_entropy_with_logits scaled_dot_product_attention rms_norm
adaptive_avg_pool2d max_pool1d avg_pool1d huber_loss fold softshrink FloatTensor LongTensor Size autocast amp is_nonzero rsub split_with_sizes inv
pinv solve eigh""".split()
LAYERS = """ReLU Sigmoid Tanh GELU SiLU LeakyReLU ELU Softplus Softmax LogSoftmax Dropout
Dropout2d Flatten BatchNorm1d BatchNorm2d LayerNorm GroupNorm MSELoss L1Loss CrossEntropyLoss NLLLoss BCELoss HuberLoss
BCEWithLogitsLoss Embedding LSTM GRU RNN ModuleList Sequential Conv2d MaxPool2d AvgPool2d AdaptiveAvgPool2d MaxPool1d
Identity""".split()
TORCH_METHODS = """abs add add_ all amax any argmax backward bool byte chunk clamp clamp_ clone contiguous copy_ cos cpu
cuda cumsum data data_ptr detach detach_ dim div dot double eq equal erf exp expand expand_as fill_ flatten flip float
floor gather ge get_device grad grad_fn gt half index_add_ index_select int is_contiguous is_cuda is_leaf item le log
long lt masked_fill matmul max mean min mm mul mul_ narrow ndimension ne neg nelement new_zeros norm numel numpy ones_like
permute pin_memory pow prod relu relu_ repeat requires_grad requires_grad_ reshape reshape_as round scatter_ sigmoid sign
softmax sort split sqrt square squeeze std storage stride sub sum t tanh to tolist topk transpose tril type type_as unbind
unfold unsqueeze var view view_as where zero_ transpose_ cumsum_ new is_sparse to_dense""".split()
MLX = """abs add addmm all allclose any arange arccos arcsin arctan argmax argpartition argsort array as_strided
async_eval atleast_1d bfloat16 broadcast_to clip compile concatenate conv1d conv2d conv_general cos cumsum
default_device dequantize diag divide enable_compile erf erfinv eval exp expand_dims eye fast fft flatten float32 floor
full grad greater identity inner isclose jvp linalg linspace load log logaddexp logical_and logsumexp matmul max maximum
mean metal min minimum moveaxis multiply negative ones outer pad partition power prod quantize random reciprocal
remainder repeat reshape round rsqrt save save_safetensors savez set_default_device sigmoid sign sin softmax sort split
sqrt square squeeze stack std stop_gradient stream subtract sum swapaxes synchronize take take_along_axis tan tanh
tensordot tile topk transpose tri tril triu value_and_grad var vjp vmap where zeros nn optimizers slice_update
get_cache_memory device_info""".split()
NUMPY = [name for name in dir(np) if not name.startswith("_")]
NUMPY_METHODS = [name for name in dir(np.ndarray) if not name.startswith("_")]
# NumPy's internal modules, which have no array functions.
MACHINERY = {"core", "lib", "ctypeslib", "testing", "test", "exceptions", "f2py", "matlib", "version", "rec", "strings", "char",
             "compat", "distutils", "show_config", "show_runtime", "get_include", "info", "dtypes"}


def message(thing, name):
    """The hint for thing.name, or None if the attribute exists."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # looking up NumPy's old names must not warn
        try:
            getattr(thing, name)
        except AttributeError as error:
            assert not hasattr(thing, name)
            return str(error)
    return None


def is_hint(text):
    return text is None or re.match(r"(an NArray|owl(\.\w+)?) has no \w+: .+", text) is not None


@pytest.mark.parametrize("module", [owl, owl.elewise], ids=lambda m: m.__name__)
def test_every_name_of_other_libraries_is_there_or_has_a_hint(module):
    names = {*TORCH, *LAYERS, *MLX, *NUMPY, "ma", "polynomial", "typing", *_hints.HINTS, *_hints.ELSEWHERE} - MACHINERY
    missing = sorted(name for name in names if not is_hint(message(module, name)))
    assert missing == []
    assert len(names) > 700


def test_every_method_of_other_libraries_is_there_or_has_a_hint():
    x = owl.ones([3, 4])
    names = {*TORCH, *TORCH_METHODS, *MLX, *NUMPY_METHODS, *_hints.HINTS} - MACHINERY - set(dir(builtins)) | {"abs", "max", "pow"}
    missing = sorted(name for name in names if not is_hint(message(x, name)))
    assert missing == []


@pytest.mark.parametrize("thing, name, parts", [
    (owl, "pow", ["owl has no pow: write x ** y"]), (owl, "max", ["x.max(axis=None)"]), (owl, "std", ["method of arrays, x.std(axis=None, correction=0)"]),
    (owl, "vstack", ["owl.concat", "axis"]), (owl, "softmax", ["owl.conv.softmax(x, "]), (owl, "tensor", ["owl.from_numpy(a)"]),
    (owl, "LeakyReLU", ["write owl.nn.LeakyReLU(slope=0.01)"]), (owl, "Softmax", ["owl.nn.Softmax(axis=0)"]), (owl, "Identity", ["x itself"]),
    (owl, "relu_", ["never change", "x = owl.relu(x)"]), (owl, "abs_", ["x = owl.abs(x)"]), (owl, "clamp_", ["never change"]),
    (owl, "BatchNorm2d", ["owl.nn.BatchNorm(3)"]), (owl, "MSELoss", ["owl.nn.mse(x, y)"]), (owl, "Dropout", ["write owl.nn.Dropout(p=0.5)"]),
    (owl.nn, "CrossEntropyLoss", ["owl.nn.softmax_cross_entropy(x, y)"]), (owl.nn, "BatchNorm1d", ["owl.nn.BatchNorm(3)"]), (owl.nn, "Adam", ["owl.optim.Adam(lr=0.001"]),
    (owl.nn, "ModuleList", ["an attribute like any other"]), (owl.nn, "functional", ["owl.nn.mse"]), (owl.optim, "Adagrad", ["write owl.optim.AdaGrad(lr=0.01"]), (owl.nn, "Dense", ["owl.nn.Linear(3, 4)"]),
    (owl.optim, "StepLR", ["owl.optim.cosine"]), (owl.train, "ModelCheckpoint", ["owl.train.Checkpoint"]), (owl.data, "DataLoader", ["owl.data.Loader"]),
    (owl, "set_float32_matmul_precision", ["write owl.set_matmul_precision(precision)"]), (owl, "complex_", ["no complex"]),
    (owl, "Convolver", ["owl.conv.Convolver"]), (owl, "T", ["x.T"]), (owl, "mm", ["w * x"]), (owl, "int16", ["int32"]),
    (owl, "no_grad", ["only inside a block of owl.Tape()"]), (owl, "median", ["np.median(x.to_numpy())"]), (owl, "Tensor", ["owl.NArray"]),
    (owl.elewise, "sum", ["x.sum(axis=None)"]), (owl.elewise, "softmax", ["owl.conv.softmax"]),
    (owl.conv, "relu", ["owl.relu(x)"]), (owl.conv, "Conv2d", ["owl.nn.Conv2d(c_in, c_out, kernel", "init=owl.nn.init.he_normal"]),
])  # fmt: skip
def test_hints_of_modules(thing, name, parts):
    text = message(thing, name)
    assert text.startswith(f"{thing.__name__} has no {name}: ")
    for part in parts:
        assert part in text, text
    assert "`" not in text


@pytest.mark.parametrize("name, parts", [
    ("numpy", ["an NArray has no numpy: write x.to_numpy()"]), ("clip", ["owl.clip(x, low, high)"]), ("exp", ["owl.exp(x)"]), ("add_", ["never change"]),
    ("leaky_relu", ["owl.leaky_relu(x, slope=0.01)"]), ("cuda", ["x.copy_to(device)"]), ("to", ["copy_to", "astype"]),
    ("float", ['x.astype("float32")']), ("flip", ["owl.flip(x, axis=None)"]), ("view", ["x.reshape(shape)"]), ("permute", ["x.transpose("]),
    ("detach", ["owl.stop_gradient(x)"]), ("backward", ["owl.grad(", "owl.Tape()"]), ("dot", ["w * x"]), ("softmax", ["owl.conv.softmax(x"]),
    ("argsort", ["owl.argsort(x, axis=0)"]), ("median", ["np.median"]), ("byteswap", ["x.to_numpy().byteswap"]), ("fill", ["never change"]),
    ("transpose_", ["never change"]), ("cumsum_", ["never change"]), ("relu_", ["x = owl.relu(x)"]), ("log_normal_", ["never change"]),
    ("bool_", ['x.astype("bool")']), ("int_", ['x.astype("int32")']), ("str_", ["bool, uint8, int32"]), ("string_", ["bool, uint8, int32"]),
    ("c_", ["np.c_"]), ("s_", ["np.s_"]), ("dropout", ["prob is the probability to keep"]),
])  # fmt: skip
def test_hints_of_arrays(name, parts):
    text = message(owl.ones([3, 4]), name)
    assert text.startswith(f"an NArray has no {name}: ")
    for part in parts:
        assert part in text, text


def test_write_stands_before_code_and_nothing_else():
    """In no hint a verb follows the code to write."""
    for name in ("gather", "choose", "compress", "extract", "index_select"):
        assert "an index is an integer or a slice, x[1], x[:, 1:3]; " in message(owl.ones([3, 4]), name)
    told = 0
    for hint in _hints.HINTS.values():
        text = re.sub("`.*?`", "CODE", _hints._worded(f"an NArray has no name: {hint}"))
        told += "write CODE" in text
        assert not re.search(r"write CODE((, or|,| or| and) CODE)*(?! for\b| or an? | and CODE| or CODE) \w", text), text
        assert text.count(": write") < 2, text
    assert told > 200


@pytest.mark.parametrize("hint, write", [
    ("`x`", True), ("`x`, or `y`", True), ("`x`, `y` and `z`", True), ("`x`, `y`; that is all", True), ("`x` for short", True),
    ("`x`, which is short", True), ("`x` takes all", False), ("`x`, `y` take all", False), ("`x` and `y` take all", False),
    ("`x`, or `y` takes all", False), ("all, `x`", False),
])  # fmt: skip
def test_write_is_for_code_without_a_verb(hint, write):
    assert _hints._worded(f"owl has no name: {hint}") == f"owl has no name: {'write ' * write}{hint}"


def namespace(tmp_path):
    rng = np.random.default_rng(1)
    x = owl.from_numpy(rng.uniform(0.1, 0.9, (4, 3)).astype(np.float32))
    y = owl.from_numpy(rng.uniform(0.1, 0.9, (4, 3)).astype(np.float32))
    image = owl.rand(8, 8, 3, 2)
    return {"owl": owl, "np": np, "math": math, "x": x, "y": y, "w": owl.ones([2, 3]), "dw": owl.ones([2, 3]),
            "b": owl.zeros([2, 1]), "square": owl.eye(3), "a": rng.random((4, 3)), "rng": rng, "mask": x > 0.5, "value": 0.0,
            "image": image, "filters": owl.ones([3, 3, 3, 5]), "bias": owl.zeros([5]), "labels": owl.arange(3, dtype="int32"),
            "n": 3, "shape": [3, 4], "axis": 0, "offset": 0, "count": 1, "low": 0.25, "high": 0.75, "mu": 0.0, "sigma": 1.0,
            "prob": 0.5, "precision": "float32", "slope": 0.2, "device": 0, "dtype": "float32", "path": str(tmp_path / "hint.npz"),
            "function": lambda a: a}  # fmt: skip


def test_every_piece_of_code_in_a_hint_runs(tmp_path):
    codes = sorted({code for hint in _hints.HINTS.values() for code in re.findall("`(.*?)`", hint)})
    assert len(codes) > 100
    problems = []
    for code in codes:
        names = namespace(tmp_path)
        try:
            exec(f"result = {code}" if "-=" not in code and "+=" not in code else f"{code}; result = None", names)
            result = names["result"]
            for part in result if isinstance(result, tuple) else [result]:
                if isinstance(part, owl.NArray):
                    part.to_numpy()
        except Exception as error:
            problems.append(f"{code}: {error!r}")
    assert problems == []


# The code that hints give for NumPy functions: it gives the same values, with both in owl's order of axes.
SAME = {
    "repeat_interleave": lambda a: np.repeat(a, 2, 0), "arcsin": np.arcsin, "arccos": np.arccos,
    "arctan": np.arctan, "arcsinh": np.arcsinh, "arctanh": np.arctanh, "cbrt": np.cbrt, "reciprocal": np.reciprocal,
    "flipud": lambda a: a[::-1], "var_mean": lambda a: a.var(0, keepdims=True), "std_mean": lambda a: a.std(0, keepdims=True),
    "normalize": lambda a: (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5),
    "prod": lambda a: a.prod(0, keepdims=True), "cumsum": lambda a: a.cumsum(0), "around": np.around, "fix": np.trunc, "frac": lambda a: a - np.trunc(a),
    "norm": lambda a: np.linalg.norm(a, axis=0, keepdims=True), "deg2rad": np.deg2rad, "hardsigmoid": lambda a: np.clip(a / 6 + 0.5, 0, 1),
    "ptp": lambda a: np.ptp(a, 0, keepdims=True),
    "swish": lambda a: a / (1 + np.exp(-a)), "softsign": lambda a: a / (1 + np.abs(a)), "nan_to_num": np.nan_to_num,
    "logit": lambda a: np.log(a / (1 - a)), "t": lambda a: a.T, "sinc": np.sinc,
    "count_nonzero": lambda a: np.count_nonzero(a, 0, keepdims=True), "flatten": lambda a: a.ravel("F"), "relu6": lambda a: a,
    "unsqueeze": lambda a: a[None], "erfc": lambda a: 1 - np.vectorize(math.erf)(a),
}
SAME_OF_TWO = {
    "add": np.add, "arctan2": np.arctan2, "sub": np.subtract, "mul": np.multiply, "divide": np.divide, "pow": np.power, "hypot": np.hypot,
    "floor_divide": np.floor_divide, "logical_and": lambda a, b: (a > 0) & (b > 0), "mod": np.mod, "logaddexp": np.logaddexp, "greater": np.greater, "less_equal": np.less_equal,
    "copysign": np.copysign, "addcdiv": lambda a, b: a + a / b, "xlogy": lambda a, b: a * np.log(b),
    "outer": lambda a, b: np.outer(a.ravel("F"), b.ravel("F")), "inner": lambda a, b: (a * b).sum().reshape(1),
}


@pytest.mark.parametrize("name", [*SAME, *SAME_OF_TWO])
def test_code_in_a_hint_has_the_values_of_what_it_replaces(name, tmp_path):
    names = namespace(tmp_path)
    x, y = (names[each].to_numpy().T.astype(np.float64) for each in "xy")
    got = eval(re.search("`(.*?)`", _hints.HINTS[name])[1], names).to_numpy().T
    want = SAME[name](x) if name in SAME else SAME_OF_TWO[name](x, y)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


WITHOUT_NAN = {
    "nansum": np.nansum, "nanmean": np.nanmean, "nanmax": np.nanmax, "nanmin": np.nanmin, "nanstd": np.nanstd, "nanvar": np.nanvar,
    "nanprod": np.nanprod, "nancumsum": lambda a, axis, keepdims: np.nancumsum(a, axis), "nanargmax": np.nanargmax, "nanargmin": np.nanargmin,
}


@pytest.mark.parametrize("name", [*WITHOUT_NAN, "fmax", "fmin"])
def test_hints_for_reductions_that_pass_over_nan(name, tmp_path):
    names = namespace(tmp_path)
    x, y = (names[each].to_numpy().T.copy() for each in "xy")
    x[[0, 2], [1, 3]] = y[[0, 1], [0, 2]] = np.nan
    names |= {"x": owl.from_numpy(x.T), "y": owl.from_numpy(y.T)}
    got = eval(re.search("`(.*?)`", _hints.HINTS[name])[1], names).to_numpy().T
    want = WITHOUT_NAN[name](x, 0, keepdims=True) if name in WITHOUT_NAN else getattr(np, name)(x, y)
    assert not np.isnan(want).any()
    np.testing.assert_allclose(got, want, rtol=1e-5)


def logits_loss(x, y):
    p = 1 / (1 + np.exp(-x))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean().reshape(1)


def attention(x, y):
    scores = np.exp(y.T @ x / np.sqrt(3))
    return y @ (scores / scores.sum(0))


@pytest.mark.parametrize("name, want", [
    ("binary_cross_entropy_with_logits", logits_loss), ("scaled_dot_product_attention", attention), ("rsub", lambda x, y: y - x),
    ("huber_loss", lambda x, y: np.where(abs(x - y) < 1, 0.5 * (x - y) ** 2, abs(x - y) - 0.5).mean().reshape(1)),
    ("rms_norm", lambda x, y: x / np.sqrt((x ** 2).mean(0) + 1e-5)),
    ("softshrink", lambda x, y: np.where(x > 0.5, x - 0.5, np.where(x < -0.5, x + 0.5, 0))),
])
def test_hints_for_torch_functional(name, want, tmp_path):
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, 2, (2, 3, 4))
    names = namespace(tmp_path) | {"x": owl.from_numpy(x.T), "y": owl.from_numpy(y.T)}
    got = eval(re.search("`(.*?)`", _hints.HINTS[name])[1], names).to_numpy().T
    np.testing.assert_allclose(got, want(x, y), rtol=1e-6)


def test_names_that_nobody_has():
    x = owl.ones([3])
    for thing, start in ((owl, "module 'owl' has no attribute"), (owl.elewise, "module 'owl.elewise' has no attribute"),
                         (x, "'owl.NArray' object has no attribute")):
        for name in ("summm", "_private", "__dunder__", "rleu", "é", "x y", "summm_", "Summm"):
            assert message(thing, name) == f"{start} {name!r}"
    assert getattr(x, "summm", 7) == 7
    with pytest.raises(TypeError):
        getattr(x, 3)


def test_a_hint_is_not_followed_by_a_guess():
    """Python adds "Did you mean" to an AttributeError that names its object."""
    for thing in (owl, owl.ones([3])):
        with pytest.raises(AttributeError) as e:
            thing.median
        assert e.value.name == "median" and e.value.obj is None
    with pytest.raises(AttributeError) as e:
        owl.ones([3]).summ
    assert e.value.name == "summ" and isinstance(e.value.obj, owl.NArray)


def test_protocols_are_left_alone(monkeypatch):
    """Libraries look these up; they get no hint."""
    x = owl.ones([3])
    monkeypatch.setattr(_hints, "of_array", lambda name: pytest.fail(f"asked for {name}"))
    for name in ("__array_interface__", "__array_struct__", "__torch_function__", "__jax_array__", "_repr_html_", "__len__x",
                 "_ipython_canary_method_should_not_exist_", "__array_function__", "__dataframe__", "__getstate_x__"):
        assert not hasattr(x, name)
    assert np.asarray(x).tolist() == [1, 1, 1] and copy.copy(x) is x and copy.deepcopy([x])[0] is x
    assert pickle.loads(pickle.dumps(x)).to_numpy().tolist() == [1, 1, 1]


def test_completion_offers_only_what_there_is():
    x = owl.ones([3, 3])
    for thing in (owl, owl.elewise, owl.conv, owl.NArray, x):
        for name in dir(thing):
            if name not in ("__cuda_array_interface__", "__abstractmethods__"):
                getattr(thing, name)
    assert not {"numpy", "vstack", "median", "add_"} & {*dir(owl), *dir(x)}
    assert dir(x) == dir(owl.NArray) and "exp" not in dir(x) and "sum" in dir(x) and "__add__" in dir(x)
    text = pydoc.plain(pydoc.render_doc(owl.NArray))
    assert "to_numpy" in text and "_Hint object" not in text and "vstack" not in text


@pytest.mark.parametrize("sign, call, told", [
    ("divmod", lambda x, y: divmod(x, y), "write x // y and x % y"), ("divmod", lambda x, y: divmod(2, x), "write x // y and x % y"),
])  # fmt: skip
def test_operators_that_arrays_lack(sign, call, told):
    with pytest.raises(TypeError) as e:
        call(owl.ones([3, 4]), owl.ones([3, 4]))
    assert str(e.value).startswith(f"an NArray has no operator {sign}: ") and told in str(e.value) and "`" not in str(e.value)


def test_operators_of_other_classes_with_arrays():
    class Mine:
        def __and__(self, other):
            return "and"

        def __rfloordiv__(self, other):
            return "rfloordiv"

        def __rdivmod__(self, other):
            return "rdivmod"

    x = owl.ones([3])
    assert (Mine() & x) == "and" and (x // Mine()) == "rfloordiv" and divmod(x, Mine()) == "rdivmod"
    assert "__divmod__" not in dir(x) and "__and__" in dir(x)


def test_operations_are_not_in_the_class_op():
    with pytest.raises(AttributeError, match=r"owl.op makes .*; the function is owl.leaky_relu"):
        owl.op.leaky_relu
    with pytest.raises(AttributeError, match="no attribute 'nothing'$"):
        owl.op.nothing
    assert not hasattr(owl.op, "__array_interface__")


def test_dot_is_called_draw():
    x = owl.ones([2, 2])
    x.wait_for_eval()
    with pytest.warns(DeprecationWarning, match="owl.draw") as warned:
        assert owl.dot(x) == owl.draw(x)
    assert warned[0].filename == __file__
    with pytest.raises(TypeError, match=r"W \* A or W @ A"):
        owl.dot(x, x)
    assert "dot" not in owl.__all__


@pytest.mark.parametrize("code, meant", [
    ("owl.nn.Lineer", "Linear"), ("owl.optim.RMSprob", "RMSprop"), ("owl.train.Trainr", "Trainer"), ("owl.data.Loder", "Loader"),
    ("owl.matmull", "matmul"), ("owl.nn.Linear(2, 3).paramters()", "parameters"), ("owl.optim.Adam().stat()", "state"),
    ('owl.train.Trainer(owl.nn.ReLU(), "mse", "adam").fitt()', "fit"), ("owl.train.History().to_cvs", "to_csv"),
])  # fmt: skip
def test_python_suggests_names_of_similar_spelling(code, meant):
    done = subprocess.run([sys.executable, "-c", f"import owl\n{code}"], capture_output=True, text=True, timeout=60)
    assert f"Did you mean: '{meant}'?" in done.stderr
