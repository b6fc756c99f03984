"""Calls every public name with random arguments: `fuzz_calls.py seed calls`, in an empty folder (test_hard_fuzz.py does
it).

Writes the current call to the file `last_call`, in case it ends the process.
"""
import collections
import decimal
import fractions
import os
import random
import sys

import numpy as np

import owl

seed, calls = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
limit = 64 << 20
os.mkdir("calls")
os.chdir("calls")  # for functions that write files


class Strange:
    """An object that implements every protocol, wrongly."""

    def __init__(self, kind):
        self.kind = kind

    def act(self, *args):
        if self.kind == "raises":
            raise KeyError("its own")
        if self.kind == "huge":
            return 2**70
        return self

    __index__ = __int__ = __float__ = __len__ = __bool__ = __iter__ = __getitem__ = __array__ = __eq__ = act
    __dlpack__ = __dlpack_device__ = __fspath__ = __str__ = act
    __hash__ = None

    def __repr__(self):
        return f"Strange({self.kind!r})"


deep = []
for _ in range(200):
    deep = [deep]
PLAIN = [None, True, False, -1, 0, 1, 2, 3, 7, 2**31, -2**31 - 1, 2**40, 2**63 - 1, 2**63, -2**63, 2**64, -2**70, 0.0,
         0.5, -1.5, 1e-300, 1e300, float("nan"), float("inf"), -float("inf"), 1j, "", "float32", "bool", "cpu", "x" *
         999, "\ud800", b"", b"bytes", [], [1], [2, 3], [0, 3], [-1], [2, -1], [1] * 9, [2**40, 2**40], [2**63], [[1,
         2], [3, 4]], [None], [0.5], ["a"], (), (2, 3), (1, 0), (4, 4, 3, 2), {}, {1: 2}, {3}, range(3), slice(None),
         slice(0, 9, -1), slice(2**70), Ellipsis, object(), int, float, "int8", np.float32, np.dtype("c8"),
         np.dtype([("a", "f4")]), lambda *a: 1, print, deep, np.float32(1.5), np.int64(2**40), np.bool_(True),
         np.array(3), np.zeros(0), np.ones((2, 3)), np.ones((2, 3), "f4"), np.array(["a"]), np.array([None]),
         np.arange(4)[::-1], decimal.Decimal("1.5"), fractions.Fraction(1, 3), Strange("raises"), Strange("huge"),
         Strange("itself"), (i for i in range(3)), memoryview(b"abc"), collections.OrderedDict(), Exception("e"),
         type, super, NotImplemented, owl, owl.conv]
SHAPES = [[1], [3], [2, 3], [3, 2], [0], [0, 3], [4, 4, 3, 2], [3, 3, 3, 5], [5], [1, 1], [6, 5, 3, 1], [1] * 8,
          [2, 3, 4]]


def array():
    shape = rng.choice(SHAPES)
    dtype = rng.choice(["float32", "float32", "float64", "int32", "bool"])
    return owl.from_numpy(np.random.default_rng(rng.randrange(99)).uniform(-3, 3, shape[::-1]).astype(dtype))


kept = []


def sensible():
    return rng.choice([array, array, array, lambda: rng.choice([0, 1, 2, -1, 0.5, 3]), lambda: rng.choice(SHAPES),
                       lambda: rng.choice(ENUMS), lambda: rng.choice(["float32", "int32", None, True])])()


# Valid calls; other calls that return are added. Half of all calls are one of these with some arguments replaced.
image, kernel, vector, square = (owl.ones(s) for s in ([6, 6, 3, 2], [3, 3, 3, 5], [5], [3, 3]))
right = {"Convolver().ff": [image, kernel, vector], "Convolver().bp": [owl.ones([4, 4, 5, 2]), image, kernel],
         "Convolver().weight_grad": [owl.ones([4, 4, 5, 2]), image, kernel], "Convolver().bias_grad": [image],
         "Pooler().ff": [image], "Pooler().bp": [owl.ones([3, 3, 3, 2]), owl.ones([3, 3, 3, 2]), image],
         "Lrner().ff": [image, image], "Lrner().bp": [image] * 4, "owl.conv.Convolver": [1, 1, 1, 1],
         "owl.conv.Pooler": [2, 2, 2, 2, 1, 1], "owl.conv.Lrner": [5, 1e-4, 0.75], "owl.concat": [[square, square], 1],
         "owl.take": [square, [0, -1], 0], "owl.put_add": [square, [0, -1], square[:2], 0], "owl.one_hot": [[0, 2], 3],
         "owl.matmul": [square, square], "owl.sort": [square, 1], "owl.argsort": [square, 1], "owl.topk": [square, 2, 1],
         "owl.slice": [square, 0, 1, 2], "owl.conv.softmax_back": [square, square], "owl.full": [[2, 3], 0.5],
         "owl.elewise.where": [square, square, 0.5], "owl.elewise.clip": [square, 0, 1], "x.reshape": [[-1]],
         "x.transpose": [[1, 0]], "owl.arange": [0, 9, 2], "owl.randb": [[2, 3], 0.5], "x.__getitem__": [(0, 0)],
         "x.copy_to": [0], "owl.set_device": [0], "x.astype": ["int32"], "owl.rand": [[3], 0, 1]}


def value(depth=0):
    r = rng.random()
    if r < 0.4:
        return array()
    if r < 0.45 and kept:
        return rng.choice(kept)
    if r < 0.5 and depth < 2:
        return [value(depth + 1) for _ in range(rng.randrange(4))]
    if r < 0.53:
        return rng.choice(ENUMS)
    return rng.choice(PLAIN)


ENUMS = [getattr(e, n) for e in (owl.conv.soft_op, owl.conv.pool_op) for n in dir(e) if not n.startswith("_")]
SKIP = {"create_cpu_device", "create_gpu_device"}  # a device is never removed
SKIP_DUNDER = {"__class__", "__init_subclass__", "__subclasshook__", "__new__", "__init__", "__del__",
               "__getattribute__", "__dir__", "__sizeof__", "__reduce__", "__reduce_ex__", "__getstate__", "__delattr__",
               "__setattr__"}
targets = []
for module in (owl, owl.elewise, owl.conv):
    for name in dir(module):
        f = getattr(module, name)
        if callable(f) and name not in SKIP and not name.startswith("_"):
            targets.append((f"{module.__name__}.{name}", f, None))
for name in dir(owl.NArray):
    if callable(getattr(owl.NArray, name)) and name not in SKIP_DUNDER:
        targets += [(f"x.{name}", name, "method")] * 2
for cls in ("Convolver", "Pooler", "Lrner"):
    for name in ("ff", "bp", "weight_grad", "bias_grad"):
        if hasattr(getattr(owl.conv, cls), name):
            targets += [(f"{cls}().{name}", name, cls)] * 3
geometries = {"Convolver": [(0, 0, 1, 1), (1, 1, 1, 1), (2, 0, 3, 2), (9, 9, 1, 1)],
              "Pooler": [(2, 2, 2, 2), (3, 3, 1, 1, 1, 1), (2, 3, 1, 5), (1, 1, 1, 1)],
              "Lrner": [(1, 1e-4, 0.75), (3, 1e-4, 0.75), (5, 1, -2)]}

log = os.open("../last_call", os.O_CREAT | os.O_RDWR)
told = collections.Counter()
problems = []
tried = 0
while tried < calls:
    owl.set_memory_limit(limit)
    owl.set_device(0)
    name, f, of = rng.choice(targets)
    make = rng.choice([value, sensible, lambda: value() if rng.random() < 0.3 else sensible()])
    args = [make() for _ in range(rng.choice([0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7]))]
    if name in right and rng.random() < 0.5:
        args = [make() if rng.random() < 0.35 else a for a in right[name]]
    keywords = {}
    if rng.random() < 0.15:
        keywords[rng.choice(["dtype", "axis", "op", "timeout", "device", "shape", "color", "x", "groups"])] = value()
    if of == "method":
        f = getattr(array(), f)
    elif of:
        f = getattr(getattr(owl.conv, of)(*rng.choice(geometries[of])), f)
    while True:  # with fewer and fewer arguments, until the number is valid
        tried += 1
        outcome, given = "returned", list(args)
        try:
            text = f"{tried} {name} {args!r:.600} {keywords!r:.200}"
        except Exception:
            text = f"{tried} {name}"
        os.pwrite(log, text.encode("utf-8", "replace").ljust(900)[:900] + b"\n", 0)
        try:
            result = f(*args, **keywords)
            if isinstance(result, owl.NArray):
                kept.append(result)
                del kept[:-20]
                str(result)
                if result.size < 1_000_000:
                    result.to_numpy()
            elif hasattr(result, "__next__"):
                next(result, None)
        except Exception as e:
            outcome = type(e).__name__
            if isinstance(e, SystemError) or any(s in str(e) for s in ("internal error", "std::", "pybind11", "C++")):
                problems.append(f"{text}: {outcome}: {e}"[:1500])
        told[outcome] += 1
        if outcome == "returned":
            right[name] = given
        if outcome != "TypeError" or not args or make is value:
            break
        args.pop()
    if tried % 100 == 0:
        try:
            owl.wait_for_all()
        except owl.Error:  # from a value in the pool
            kept.clear()
kept.clear()
result = args = keywords = f = None
owl.set_memory_limit(0)
for setting in ("trace_nan", "eager"):
    if hasattr(owl, setting):
        getattr(owl, setting)(False)
assert float((owl.ones([10]) * 2).sum()) == 20
for p in problems[:5]:
    print("problem:", p)
print(f"fuzz: seed {seed}, {len(targets)} callables, tried {tried}, failed {len(problems)};", dict(told))
print("good" if not problems else "bad")
