"""The type stubs: complete, with the right signatures, sufficient for the programs; and docstrings for all names."""

import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import owl

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
[mypy]
strict = True
disable_error_code = import-untyped
"""
# Differences that mypy.stubtest cannot resolve, with reasons.
ALLOWED = r"""
# classes made by pybind11 have a metaclass of its own
owl\._owl\.(CheckpointScope|DeviceInfo|HeldSource|HoldWindow|TapeState)
owl\.conv\.(Convolver|Lrner|Pooler)(\.__signature__)?
owl\._owl\.DeviceInfo\.__init__
owl\.conv\.(pool|soft)_op\.__pybind11_native_enum__
# several integers in the place of a list, or an argument with a second name: overloads
owl\._owl\.(zeros|ones|rand|randn|concat|slice)
owl\.(zeros|ones|rand|randn|concat|slice)
# with one argument, the factor alone: two overloads
owl\.elewise\.(sigm|tanh)_back
# its class leaves hints out of dir()
owl\._owl\.NArray
# builtins as class attributes; an alias in quotes
owl\.inspection\.\w+\._(read|write)
owl\.inspection\.Explained
"""


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """Runs mypy, or a module of it, over files: mypy(*arguments, module="mypy") -> CompletedProcess."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("mypy")
    (folder / "mypy.ini").write_text(SETTINGS, encoding="utf-8")

    def run(*arguments, module="mypy"):
        option = ["--mypy-config-file"] if module == "mypy.stubtest" else ["--cache-dir", folder / "cache", "--config-file"]
        command = [sys.executable, "-m", module, *option, folder / "mypy.ini", *arguments]
        return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=500)

    return run


def test_the_package_itself(mypy):
    done = mypy("owl")
    assert done.returncode == 0, done.stdout


def test_the_programs(mypy):
    programs = sorted(str(path) for path in (ROOT / "apps").rglob("*.py"))
    assert programs
    unannotated = ["--allow-untyped-defs", "--allow-untyped-calls", "--allow-incomplete-defs", "--allow-any-generics"]
    done = mypy(*unannotated, *programs)
    assert done.returncode == 0, done.stdout


PROGRAM = '''
import numpy as np
import owl
from owl import conv, elewise

x: owl.NArray = owl.randn([3, 4], 0.0, 0.01)
y = (2 * x + x / 3 - np.float64(1)) * x.T
shape: list[int] = y.shape
first: owl.NArray = y[0, ..., None, ::-1]
y += 1.0
y *= 2
loss: float = float(y.sum([0, 1]))
names: list[str] = [device.name for device in owl.devices()]
with owl.device(0):
    z = elewise.where(x > 0, x, 0.0)
z = elewise.sigm_back(z)
z = elewise.sigm_back(x, z)
z = conv.softmax(z, conv.soft_op.channel)
pool = conv.Pooler(2, 2, 2, 2, op=conv.pool_op.avg, ceil_mode=False)
image = pool.ff(conv.Convolver(1, 1, dilation=(1, 2)).ff(x, x, x))
done: bool = z.wait_for_eval(timeout=0.5) and z.ready()
softsign = owl.op(lambda a: a / (1 + abs(a)), name="softsign", shape=lambda s: s, dtype="float32")
z = softsign(x)
try:
    z = z.reshape([5, -1]).reshape(5, -1).transpose(1, 0)
except owl.ShapeError as error:
    text: str = str(error)
a: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]" = z.to_numpy()
owl.set_matmul_precision("tf32")
sums: list[owl.NArray] = owl.all_reduce([x, y])
x = owl.from_cupy(x.to_cupy())
x = owl.zeros(3, 4) + owl.ones(3, 4, dtype="int32") + owl.rand(3, 4) + owl.randn(3, 4, sigma=2.0)
x = owl.concat([x, x], axis=0) + owl.concat([x, x], dim=0) + owl.slice(x, dim=0, offset=0, count=1)
x = owl.log(owl.sigmoid(owl.multiply(x, 2.0))) + owl.leaky_relu(x, 0.2) + owl.gelu(x, approximate=True)
x = owl.eye(3) + owl.linspace(0, 1, num=9) + owl.zeros_like(x) + owl.full_like(x, 7, "int32")
parts: list[owl.NArray] = owl.split(owl.stack([x, x], axis=1), [1], axis=1)
x = owl.pad(owl.flip(x), [(1, 0), (0, 1)], value=2) + owl.roll(x, 1, axis=0) + owl.tile(x, [2, 1]) + owl.repeat(x, 2)
x = x.var(0) + x.std([0, 1], correction=1) + x.any() + x.all(axis=0) + owl.logsumexp(x, 0) + owl.atan2(x, 1.0)
graph: str = owl.draw(x)
owl.vstack([x, x])  # error
x.numpy()  # error
owl.zeros(3, 4.0)  # error
owl.gelu(x, approximate="tanh")  # error
x + [1, 2]  # error
x @ 2  # error
x.summ()  # error
elewise.rleu(x)  # error
elewise.relu([1.0])  # error
owl.zeros("float32")  # error
owl.randn([2], variance=1.0)  # error
x[0] = 1.0  # error
x[1.5]  # error
conv.Convolver(1, 1, 1, 1, 2)  # error
conv.softmax(x, "channel")  # error
softsign(np.ones(3))  # error
x.copy_to("cpu")  # error
owl.op(3)  # error
owl.set_matmul_precision("half")  # error
owl.all_reduce(x)  # error
'''


def test_a_program_that_uses_everything_and_some_mistakes(mypy, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = mypy("--no-error-summary", program)
    wrong = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    marked = {i for i, line in enumerate(PROGRAM.splitlines(), 1) if "# error" in line}
    assert wrong == marked, done.stdout


def test_stubs_agree_with_the_package(mypy, tmp_path):
    allowed = tmp_path / "allowed.txt"
    allowed.write_text(ALLOWED, encoding="utf-8")
    done = mypy("owl", "--allowlist", allowed, "--ignore-unused-allowlist", module="mypy.stubtest")
    assert done.returncode == 0, done.stdout


# Calls that give an object's signature something to bind: (what, arguments, keywords).
CALLS = {
    "owl.zeros": [((3,), {}), (([3, 4],), {"dtype": "int32"}), ((3, 4), {}), (([3, 4], "int32"), {})],
    "owl.concat": [(([], 0), {}), (([],), {"axis": 0})], "owl.slice": [((None, 0, 1, 2), {})],
    "owl.conv.Convolver": [((), {}), ((1, 1, 2, 2), {"dilation": 2, "groups": 3})],
    "owl.conv.Pooler": [((2, 2, 2, 2), {"op": owl.conv.pool_op.avg, "ceil_mode": False})],
    "owl.conv.Lrner": [((5, 1e-4, 0.75), {})], "owl.conv.Convolver.ff": [((None, None, None, None), {})],
    "owl.elewise.leaky_relu": [((None,), {"slope": 0.2}), ((None, 0.2), {})], "owl.elewise.gelu": [((None,), {"approximate": True})],
    "owl.elewise.clip": [((None, 0, 1), {})], "owl.NArray.sum": [((None,), {"axis": 0})], "owl.initialize": [((), {})],
}
DEFAULTS = {
    "owl.conv.softmax": {"op": owl.conv.soft_op.instance}, "owl.conv.Pooler": {"op": owl.conv.pool_op.max, "pad_h": 0},
    "owl.elewise.leaky_relu": {"slope": 0.01}, "owl.elewise.elu": {"alpha": 1.0}, "owl.elewise.gelu": {"approximate": False},
    "owl.linspace": {"num": 50, "endpoint": True}, "owl.randn": {"mu": 0.0, "sigma": 1.0, "dtype": "float32"},
    "owl.conv.Convolver": {"stride_v": 1, "dilation": 1},
}  # fmt: skip


def test_everything_that_can_be_called_has_a_signature():
    signatures = {}
    for name, thing in EVERYTHING:
        not_called = thing is owl.NArray or thing is owl.DeviceInfo or (isinstance(thing, type) and issubclass(thing, Exception))
        if callable(thing) and not not_called:
            signatures[name] = inspect.signature(thing)
            if name != "owl.nn.Module.forward":  # which every network defines with its own
                assert "args" not in signatures[name].parameters, name
    for name, calls in CALLS.items():
        for arguments, keywords in calls:
            signatures[name].bind(*arguments, **keywords)
    for name, defaults in DEFAULTS.items():
        for parameter, value in defaults.items():
            default = signatures[name].parameters[parameter].default
            assert default == value and type(default) is type(value), (name, parameter)


def public_things():
    """(name, object) of every public object."""
    found = []
    for module, names in ((owl, [*owl.__all__, "IndexError", "slice"]), (owl.conv, owl.conv.__all__),
                          (owl.elewise, owl.elewise.__all__), (owl.data, owl.data.__all__), (owl.train, owl.train.__all__), (owl.nn, owl.nn.__all__), (owl.nn.init, owl.nn.init.__all__),
                          (owl.optim, owl.optim.__all__)):
        for name in names:
            thing = getattr(module, name)
            full = f"{module.__name__}.{name}"
            if callable(thing) or isinstance(thing, types.ModuleType):
                found.append((full, thing))
            if isinstance(thing, type):
                inherited = set(dir(Exception)) | set(dir(tuple)) if issubclass(thing, (Exception, tuple)) else set()
                found += [(f"{full}.{member}", inspect.getattr_static(thing, member)) for member in dir(thing)
                          if not member.startswith("_") and member not in inherited]
    return found


EVERYTHING = public_things()


@pytest.mark.parametrize("name, thing", EVERYTHING, ids=[name for name, _ in EVERYTHING])
def test_everything_public_has_words(name, thing):
    words = inspect.getdoc(thing) or ""
    own = words.split("--\n\n")[-1].strip()
    assert len(own) > 10, f"{name}: no documentation"
    if isinstance(thing, type) and issubclass(thing, Exception):
        assert words != Exception.__doc__


# Docstrings of functions with shapes and errors name them.
SAYS = {
    "owl.linspace": ["float64", "ShapeError", "ValueError"], "owl.eye": ["[n, m]", "ShapeError"],
    "owl.zeros": ["ShapeError", "DTypeError"], "owl.full": ["ShapeError", "OverflowError"], "owl.arange": ["Shape ["],
    "owl.rand": ["DTypeError"], "owl.randn": ["DTypeError"], "owl.randb": ["ValueError"], "owl.concat": ["ShapeError"],
    "owl.slice": ["IndexError"], "owl.from_numpy": ["DTypeError", "[w, h, n]"], "owl.from_dlpack": ["DTypeError", "DeviceError"],
    "owl.from_cupy": ["TypeError"], "owl.NArray.to_cupy": ["DeviceError", "Error: CuPy"],
    "owl.all_reduce": ["ShapeError", "DTypeError", "DeviceError", "ValueError"],
    "owl.set_matmul_precision": ["'float32'", "'tf32'", "'bfloat16'", "ValueError"],
    "owl.create_gpu_device": ["DeviceError"], "owl.set_device": ["DeviceError"], "owl.set_memory_limit": ["OutOfMemoryError"],
    "owl.op": ["ShapeError", "DTypeError", "backward"], "owl.NArray.reshape": ["ShapeError", "-1"],
    "owl.NArray.trans": ["ShapeError", "[n, m]"], "owl.NArray.transpose": ["ShapeError"],
    "owl.NArray.sum": ["length 1", "[1]"], "owl.NArray.max": ["length 1", "ShapeError"],
    "owl.NArray.min": ["length 1", "ShapeError"], "owl.NArray.mean": ["length 1", "NaN"],
    "owl.NArray.argmax": ["int32", "first"], "owl.NArray.argmin": ["int32", "first"],
    "owl.NArray.item": ["ShapeError"], "owl.NArray.astype": ["DTypeError"], "owl.NArray.copy_to": ["DeviceError"],
    "owl.NArray.to_numpy": ["(n, h, w)"], "owl.NArray.wait_for_eval": ["False"],
    "owl.conv.Convolver": ["ShapeError", "[W, H, C_in, N]"], "owl.conv.Pooler": ["ShapeError", "ceil_mode"],
    "owl.conv.Lrner": ["ShapeError", "[W, H, C, N]"], "owl.conv.softmax": ["float32"],
}


def test_texts_say_what_matters():
    texts = {name: inspect.getdoc(thing) for name, thing in EVERYTHING}
    missing = [(name, word) for name, words in SAYS.items() for word in words if word not in texts[name]]
    assert missing == []
