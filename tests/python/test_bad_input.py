"""Wrong calls raise one clear error of the right class at their line; nothing aborts, and the engine still works."""
import re

import numpy as np
import pytest

import owl
from conftest import same_bits, settle
from reference import arr, val

X = np.arange(6, dtype=np.float32).reshape(2, 3)
SHAPE, DTYPE, INDEX = owl.ShapeError, owl.DTypeError, IndexError
NAN = float("nan")


def f32(*shape):
    return owl.ones(list(shape))


def bools(*shape):
    return owl.ones(list(shape), dtype="bool")


TYPES = ["bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32 and float64"]
MAKERS = {
    "zeros": lambda t: owl.zeros([2], dtype=t), "zeros by place": lambda t: owl.zeros([2], t),
    "ones": lambda t: owl.ones([2], dtype=t), "full": lambda t: owl.full([2], 1, dtype=t),
    "arange": lambda t: owl.arange(3, dtype=t), "eye": lambda t: owl.eye(3, dtype=t), "rand": lambda t: owl.rand([2], dtype=t),
    "randn": lambda t: owl.randn([2], dtype=t), "randb": lambda t: owl.randb([2], 0.5, dtype=t),
    "linspace": lambda t: owl.linspace(0, 1, 3, dtype=t), "zeros_like": lambda t: owl.zeros_like(f32(2), dtype=t),
    "ones_like": lambda t: owl.ones_like(f32(2), t), "full_like": lambda t: owl.full_like(f32(2), 1, t),
    "astype": lambda t: f32(2).astype(t), "op": lambda t: owl.op(lambda a: a, dtype=t),
    "op's rule": lambda t: owl.op(lambda a: a, dtype=lambda a: t)(f32(2)),
}  # fmt: skip
DEVICES = {"set_device": owl.set_device, "copy_to": lambda id: f32(2).copy_to(id), "memory_stats": owl.memory_stats,
           "set_memory_limit": lambda id: owl.set_memory_limit(1 << 40, id), "device": lambda id: owl.device(id).__enter__()}
AXES = {
    **{name: lambda axis, name=name: getattr(f32(2, 3), name)(axis)
       for name in ("sum", "max", "min", "mean", "var", "std", "any", "all", "argmax", "argmin", "max_index")},
    "split": lambda axis: owl.split(f32(2, 3), 1, axis), "flip": lambda axis: owl.flip(f32(2, 3), axis),
    "roll": lambda axis: owl.roll(f32(2, 3), 1, axis), "repeat": lambda axis: owl.repeat(f32(2, 3), 1, axis),
    "logsumexp": lambda axis: owl.logsumexp(f32(2, 3), axis),
    "sum of a list": lambda axis: f32(2, 3).sum([axis]), "concat": lambda axis: owl.concat([f32(2, 3), f32(2, 3)], axis),
    "take": lambda axis: owl.take(f32(2, 3), [0], axis), "put_add": lambda axis: owl.put_add(f32(2, 3), [0], 1, axis),
    **{name: lambda axis, name=name: getattr(owl, name)(f32(2, 3), axis) for name in ("sort", "argsort")},
    "topk": lambda axis: owl.topk(f32(2, 3), 1, axis),
    "slice": lambda axis: owl.slice(f32(2, 3), axis, 0, 1), "transpose": lambda axis: f32(2, 3).transpose([0, axis]),
}
CHOICES = {
    "softmax": (lambda op: owl.conv.softmax(f32(2, 2), op), "soft_op"),
    "log_softmax": (lambda op: owl.conv.log_softmax(f32(2, 2), op=op), "soft_op"),
    "softmax_back": (lambda op: owl.conv.softmax_back(f32(2, 2), f32(2, 2), op), "soft_op"),
    "Pooler": (lambda op: owl.conv.Pooler(2, 2, 2, 2, op=op), "pool_op"),
}

CASES = {
    # shapes
    "add": (lambda: f32(2, 3) + f32(3, 2), SHAPE, ["[2, 3]", "[3, 2]"]),
    "mult": (lambda: owl.elewise.mult(f32(4), f32(5)), SHAPE, ["[4]", "[5]"]),
    "where": (lambda: owl.elewise.where(f32(2) > 0, f32(3), f32(2)), SHAPE, ["[3]"]),
    "matmul": (lambda: f32(256, 784) * f32(256, 10), SHAPE,
               ["matrix product of [256, 784] and [256, 10]", "784", "256"]),
    "matmul 3-d": (lambda: f32(2, 3, 4) * f32(4, 3), SHAPE, ["[2, 3, 4]"]),
    "matmul of many": (lambda: owl.matmul(f32(2, 3, 4), f32(3, 2, 5)), SHAPE, ["[2, 3, 4] and [3, 2, 5]", "4 and 5", "axis 2"]),
    "matmul of a vector": (lambda: owl.matmul(f32(3), f32(3, 2)), SHAPE, ["[3] and [3, 2]", "reshape([-1, 1])"]),
    "put_add": (lambda: owl.put_add(f32(2, 3), [0], f32(2, 2), 1), SHAPE, ["[2, 2]", "[2, 1]"]),
    "topk": (lambda: owl.topk(f32(2, 3), 3), SHAPE, ["k is 3", "axis 0", "[2, 3]"]),
    "one_hot": (lambda: owl.one_hot(owl.zeros([2, 3], "int32"), 4), SHAPE, ["[2, 3]", "[1, N]"]),
    "in-place": (lambda: f32(2, 1).__iadd__(f32(2, 5)), SHAPE, ["[2, 1]", "[2, 5]"]),
    "reshape": (lambda: f32(2, 3).reshape([7]), SHAPE, ["[2, 3]", "7"]),
    "reshape to nothing": (lambda: f32(1).reshape([]), SHAPE, []),
    "zeros of nothing": (lambda: owl.zeros([]), SHAPE, []),
    "negative length": (lambda: owl.zeros([3, -2]), SHAPE, ["-2"]),
    "nine axes": (lambda: owl.zeros([1] * 9), SHAPE, ["9"]),
    "overflow": (lambda: owl.zeros([2**40, 2**40]), SHAPE, []),
    "too long by broadcasting": (lambda: owl.zeros([2**40, 1]) + owl.zeros([1, 2**40]), SHAPE, []),
    "trans": (lambda: f32(2, 3, 4).trans(), SHAPE, ["[2, 3, 4]"]),
    "transpose": (lambda: f32(2, 3).transpose([0, 0]), SHAPE, []),
    "concat": (lambda: owl.concat([f32(2, 3), f32(3, 3)], 1), SHAPE, ["[2, 3]", "[3, 3]"]),
    "concat of nothing": (lambda: owl.concat([], 0), SHAPE, []),
    "conv": (lambda: owl.conv.Convolver(0, 0, 1, 1).ff(f32(8, 8, 3, 1), f32(3, 3, 2, 4), f32(4)), SHAPE, ["3", "2"]),
    "conv kernel too large": (lambda: owl.conv.Convolver(0, 0, 1, 1).ff(f32(2, 2, 1, 1), f32(3, 3, 1, 1), f32(1)),
                              SHAPE, []),
    "pool": (lambda: owl.conv.Pooler(2, 2, 2, 2).ff(f32(4, 4)), SHAPE, ["[4, 4]"]),
    "softmax_back": (lambda: owl.conv.softmax_back(f32(2, 3), f32(3, 2)), SHAPE, []),
    "empty maximum": (lambda: owl.zeros([0, 3]).max(0), SHAPE, ["max"]),
    # axes and indices
    "sum axis": (lambda: f32(2, 3).sum(2), SHAPE, ["2", "[2, 3]"]),
    "max axis": (lambda: f32(2, 3).max(-3), SHAPE, ["-3", "[2, 3]"]),
    "argmax axis": (lambda: f32(2, 3).argmax(5), SHAPE, ["5", "[2, 3]"]),
    "axis twice": (lambda: f32(2, 3).sum([1, 1]), SHAPE, []),
    "concat axis": (lambda: owl.concat([f32(2)], 1), SHAPE, ["1"]),
    "index": (lambda: f32(2, 3)[0, 3], INDEX, ["index 3", "axis 1", "3"]),
    "too many indices": (lambda: f32(2, 3)[0, 0, 0], INDEX, []),
    "slice": (lambda: owl.slice(f32(2, 3), 1, 2, 5), (SHAPE, INDEX), ["5"]),
    # element types
    "minus of bool": (lambda: bools(2) - bools(2), DTYPE, ["bool"]),
    "unary minus of bool": (lambda: -bools(2), DTYPE, ["bool"]),
    "dtype unsupported": (lambda: owl.zeros([2], dtype="complex64"), DTYPE, ["complex64", "float32"]),
    "astype": (lambda: f32(2).astype("int8"), DTYPE, ["int8"]),
    "text": (lambda: owl.from_numpy(np.array(["a"])), DTYPE, []),
    "objects": (lambda: owl.from_numpy(np.array([{}])), DTYPE, []),
    **{f"dtype {dtype!r:.30} of {name}": (lambda make=make, dtype=dtype: make(dtype), DTYPE, TYPES)
       for name, make in MAKERS.items() for dtype in ("nonsense", "f4,f4(", "int16", 7, 1.5, [], {"a": 1}, object(), "é", b"\xff")},
    "astype None": (lambda: f32(2).astype(None), DTYPE, TYPES),
    # devices: missing or impossible ones
    **{f"device {id} of {name}": (lambda use=use, id=id: use(id), owl.DeviceError, [str(id)])
       for name, use in DEVICES.items() for id in (-1, 99, 2**31, 2**40, 2**70, -2**70)},
    **{f"device {id!r} of {name}": (lambda use=use, id=id: use(id), TypeError, ["integer"])
       for name, use in DEVICES.items() for id in ("cpu", "cuda:0", 1.0, [0])},
    # axes: missing or impossible ones
    **{f"axis {axis} of {name}": (lambda use=use, axis=axis: use(axis), SHAPE, [])
       for name, use in AXES.items() for axis in (2, -3, 2**40, 2**70, -2**70)},
    **{f"axis {axis!r} of {name}": (lambda use=use, axis=axis: use(axis), TypeError, ["integer"])
       for name, use in AXES.items() for axis in ("0", 1.0, {}, "x")},
    # op=
    **{f"op {op!r} of {name}": (lambda use=use, op=op: use(op), TypeError, [f"owl.conv.{kind}"])
       for name, (use, kind) in CHOICES.items() for op in ("max", "channel", 0, 1, None, True, [])},
    # arguments
    "shape as text": (lambda: owl.zeros("23"), TypeError, []),
    "shape of floats": (lambda: owl.zeros([2.0]), TypeError, []),
    "full of text": (lambda: owl.full([2], "1"), TypeError, []),
    "axis as float": (lambda: f32(2).sum(0.0), TypeError, []),
    "seed as text": (lambda: owl.seed("x"), TypeError, []),
    "no argument": (lambda: owl.elewise.exp(), TypeError, []),
    "two arguments": (lambda: owl.elewise.exp(f32(1), f32(1)), TypeError, []),
    "number alone": (lambda: owl.elewise.exp(1.0), TypeError, []),
    "unknown keyword": (lambda: owl.zeros([2], color=1), TypeError, ["color"]),
    "op of another kind": (lambda: owl.conv.softmax(f32(2, 2), owl.conv.pool_op.max), TypeError, []),
    "numpy to conv": (lambda: owl.conv.softmax(X), TypeError, []),
    "start_eval argument": (lambda: f32(1).start_eval(1), TypeError, []),
    "timeout as text": (lambda: f32(1).wait_for_eval("1"), TypeError, []),
    "item of many": (lambda: f32(2).item(), (ValueError, TypeError), ["[2]"]),
    "bool of many": (lambda: bool(f32(2) > 0), SHAPE, ["[2]", "(x != 0).min()", "(x != 0).max()"]),
    "float of many": (lambda: float(f32(2)), (ValueError, TypeError), ["[2]"]),
    # values
    "even LRN": (lambda: owl.conv.Lrner(4, 0.1, 0.75).ff(f32(2, 2, 5, 1), f32(2, 2, 5, 1)), ValueError, ["4"]),
    "probability": (lambda: owl.randb([2], 1.5), (ValueError, owl.Error), ["1.5"]),
    "too large a number for int32": (lambda: owl.zeros([2], dtype="int32") + 2**40,
                                     (OverflowError, ValueError, owl.Error), []),
    "too large a fill for int32": (lambda: owl.full([2], 2**40, dtype="int32"), (OverflowError, ValueError, owl.Error),
                                   []),
    # classes
    "new NArray": (lambda: owl.NArray(), TypeError, []),
    "derived": (lambda: type("Mine", (owl.NArray,), {}), TypeError, []),
    "attribute": (lambda: setattr(f32(1), "color", 1), AttributeError, []),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error(case):
    before = arr(X)
    call, kinds, parts = CASES[case]
    with pytest.raises(kinds) as e:
        call()
    text = str(e.value)
    for part in parts:
        assert part in text, text
    assert text and "internal error" not in text and "std::" not in text and "pybind11" not in text
    assert same_bits(val(before), X) and same_bits(val(before + 1), X + np.float32(1))


def test_errors_leave_no_work_behind():
    before = settle()["live_nodes"]
    for call, kinds, _ in CASES.values():
        with pytest.raises(kinds):
            call()
    assert settle()["live_nodes"] <= before


def test_a_number_beyond_float32_is_infinite():
    x = owl.ones([2]) * 1e300
    assert np.isinf(val(x)).all()
    assert np.isnan(val(owl.full([2], NAN))).all()


def test_settings_that_make_no_sense(script):
    """An invalid value of a setting raises an error, never a crash."""
    for name, value in (("OWL_NUM_THREADS", "many"), ("OWL_NUM_THREADS", "-3"), ("OWL_WINDOW", "x"),
                        ("OWL_SIMULATED_GPUS", "-1"), ("OWL_FAULT", "what"), ("OWL_FAULT", "op:1x"),
                        ("OWL_FAULT", "op:"), ("OWL_MEMORY_LIMIT", "1" + 19 * "0")):
        done = script("import owl\nprint(float(owl.ones([3]).sum()))", env={name: value}, expect=None)
        assert done.returncode in (0, 1), done.stderr
        assert name in done.stderr, f"{name}={value} is taken in silence"
        assert done.stdout.strip() == "3.0" or "Error" in done.stderr


def test_an_unknown_setting_is_reported_with_the_nearest(script):
    done = script("import owl\nprint(float(owl.ones([3]).sum()))", env={"OWL_NUM_THREAD": "1"})
    assert done.stdout.strip() == "3.0"
    assert "OWL_NUM_THREAD" in done.stderr and "OWL_NUM_THREADS" in done.stderr


def test_import_from_any_folder(script):
    done = script("import os\nos.chdir('/')\nimport owl\nprint(float(owl.ones([3]).sum()))")
    assert done.stdout.strip() == "3.0"


@pytest.mark.parametrize("call, words", [
    (lambda: owl.conv.Convolver(0, 0, 1, 1, 2), "by name also: dilation, groups"),
    (lambda: owl.conv.Convolver(pad=1), "no argument 'pad'; it takes pad_h, pad_w"),
    (lambda: owl.conv.Convolver(0.5), "Convolver: pad_h must be an integer, not float"),
    (lambda: owl.conv.Convolver(dilation="2"), "Convolver: dilation must be"),
    (lambda: owl.conv.Pooler(2, 2), "needs the argument 'stride_v'"),
    (lambda: owl.conv.Pooler(2, 2, 2, 2, op="max"), "Pooler: op must be an owl.conv.pool_op, not str"),
    (lambda: owl.conv.Pooler(2, 2, 2, 2, ceil_mode=2), "Pooler: ceil_mode must be True or False, not int"),
    (lambda: owl.conv.Lrner(3), "needs the argument 'alpha'"),
    (lambda: owl.conv.Lrner(3, "1", 2), "Lrner: alpha must be a number, not str"),
    (lambda: owl.conv.Convolver().ff(f32(4, 4, 1, 1)), "Convolver.ff() needs the argument 'w'; it takes x, w, b"),
    (lambda: owl.conv.Pooler(2, 2, 2, 2).ff(1), "Pooler.ff: x must be an owl.NArray, not int"),
    (lambda: owl.conv.softmax(f32(2, 2), 1), "softmax: op must be an owl.conv.soft_op, not int"),
    (lambda: owl.conv.softmax(), "softmax() needs the argument 'x'"),
    (lambda: owl.set_device("cpu"), "set_device: id must be an integer, not str"),
    (lambda: owl.create_gpu_device(), "create_gpu_device() needs the argument 'i'"),
    (lambda: owl.set_memory_limit("1 GB"), "set_memory_limit: bytes must be an integer, not str"),
    (lambda: owl.seed(1.5), "seed: n must be an integer, not float"),
    (lambda: owl.seed("a"), "seed: n must be an integer, not str"),
    (lambda: owl.set_random_state(3), "set_random_state: state must be what random_state() gave, two integers, not 3"),
    (lambda: owl.set_random_state((1, 2, 3)), "two integers, not (1, 2, 3)"),
    (lambda: owl.set_random_state((1, 2.5)), "set_random_state: the number of arrays drawn must be an integer, not float"),
    (lambda: owl.zeros(2, 3.0), "zeros: shape must be one integer or several, not float"),
    (lambda: owl.zeros(2.0), "zeros: shape must be one integer or several, not float"),
    (lambda: owl.zeros([2, 3.0]), "zeros: shape must be one integer or several, not float"),
    (lambda: owl.randn("3"), "randn: shape must be one integer or several, not str"),
    (lambda: f32(2).reshape(2, 1.0), "reshape: shape must be one integer or several, not float"),
    (lambda: f32(2).reshape([2, 1.0]), "reshape: shape must be one integer or several, not float"),
    (lambda: np.sum(f32(2)), "the axes always stay, with length 1: write x.sum(axis), or np.sum(x.to_numpy())"),
    (lambda: np.mean(f32(2), 0), "write x.mean(axis), or np.mean(x.to_numpy())"),
    (lambda: np.max(f32(2)), "write x.max(axis), or np.max(x.to_numpy())"),
    (lambda: np.min(f32(2)), "write x.min(axis), or np.min(x.to_numpy())"),
    (lambda: f32(2).argmax(0, keepdims=True), "write x.argmax(axis), or np.argmax(x.to_numpy())"),
    (lambda: f32(2).sum(0, keepdims=True), "sum() has no argument 'keepdims'; it takes axis, and the axes always stay"),
    (lambda: owl.memory_stats(1.0), "memory_stats: device must be an integer, not float"),
])
def test_wrong_arguments_are_told_in_words(call, words):
    with pytest.raises(TypeError, match=re.escape(words)) as e:
        call()
    assert "typing." not in str(e.value) and "_owl" not in str(e.value)


def test_dilation_of_three_numbers_and_a_device_beyond_every_int():
    with pytest.raises(owl.ShapeError, match="got 3"):
        owl.conv.Convolver(dilation=(1, 2, 3))
    for device in (2**40, -1):
        with pytest.raises(owl.DeviceError, match=str(device)):
            owl.set_device(device)
