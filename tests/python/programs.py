"""Random programs: any list of small integers is byte code, run by owl or by NumPy with a bound on the error.

An instruction is a tuple of six integers, (what, a, b, c, d, e); each is taken modulo the number of choices, so every
list is a program, and a failing one shrinks to a short one. Values live in a pool that starts with three arrays.

Run as a script, `programs.py seed count`, it prints one hash over the bits of every value of `count` programs.
"""
import hashlib
import random
import sys

import numpy as np

SHAPES = [(1,), (5,), (4, 3), (4, 1), (1, 3), (3, 4), (4, 3, 2), (4, 1, 2), (1, 3, 1), (4, 4), (16, 5), (0, 3),
          (7, 1, 1, 2)]
LARGE = [(300, 257), (70_001,), (300, 1), (1, 257), (64, 64, 20), (257, 300)]
NUMBERS = [0.5, -1.25, 3, 1, 0.1, -2]
MAX_SIZE = 200_000


def random_program(rng, length=None):
    return [tuple(rng.randrange(1000) for _ in range(6)) for _ in range(length or rng.randint(3, 30))]


class Machine:
    """The instructions, apart from arithmetic. `lib` computes; `pool` has its values."""

    def __init__(self, lib, shapes=SHAPES):
        self.lib, self.shapes, self.pool = lib, shapes, []
        for i in range(3):
            self.make(i, i, 0)

    def make(self, shape, seed, kind):
        shape = self.shapes[shape % len(self.shapes)]
        a = np.random.default_rng(seed).uniform(-2, 2, shape)
        self.pool.append(self.lib.leaf(a, self.lib.kinds[kind % len(self.lib.kinds)]))

    def run(self, program):
        for instruction in program:
            self.step(*instruction)
            del self.pool[:-12]
        return self.pool

    def pick(self, n):
        return self.pool[n % len(self.pool)]

    def partner(self, x, n, fits):
        """The first value from the n-th on that x can be combined with, or None."""
        for i in range(len(self.pool)):
            y = self.pick(n + i)
            if fits(x.shape, y.shape):
                return y
        return None

    def step(self, what, a, b, c, d, e):
        lib, x = self.lib, self.pick(a)
        name = lib.names[what % len(lib.names)]
        result = None
        if name == "leaf":
            self.make(a, b, c)
        elif name == "drop":
            if len(self.pool) > 1:
                del self.pool[a % len(self.pool)]
        elif name in ("pause", "device"):
            getattr(lib, name)(x, b)
        elif name == "unary":
            result = lib.unary(x, b)
        elif name == "number":
            result = lib.number(x, b, NUMBERS[c % len(NUMBERS)], d % 2)
        elif name == "binary":
            y = self.partner(x, b, broadcasts)
            result = lib.binary(x, y, c) if y is not None else lib.number(x, c, 0.5, d % 2)
        elif name == "in-place":
            y = self.partner(x, b, lambda s, t: broadcasts(s, t) and result_shape(s, t) == tuple(s))
            if y is not None:
                at = a % len(self.pool)
                del x
                box = [self.pool[at]]
                self.pool[at] = None  # drops the old value
                self.pool[at] = lib.in_place(box, y, c)
        elif name == "reduce":
            result = lib.reduce(x, b, c % len(x.shape), d)
        elif name == "matmul":
            y = self.partner(x, b, lambda s, t: len(s) == len(t) == 2 and s[1] == t[0] and s[0] * t[1] <= MAX_SIZE)
            if y is not None:
                result = lib.matmul(x, y)
            elif len(x.shape) == 2 and x.shape[0] ** 2 <= MAX_SIZE:
                result = lib.matmul(x, lib.transpose(x, (1, 0)))
        elif name == "view":
            axis, length = b % len(x.shape), x.shape[b % len(x.shape)]
            start = c % (length + 1)
            step = (1, 2, -1, 3, -2)[e % 5]
            stop = start + d % (length - start + 1) if step > 0 else None
            result = lib.view(x, axis, slice(start, stop, step))
        elif name == "transpose":
            order = list(range(len(x.shape)))
            random.Random(b).shuffle(order)
            result = lib.transpose(x, tuple(order))
        elif name == "reshape":
            shape = (size(x.shape),) if b % 2 else (size(x.shape[:1]), size(x.shape[1:]))
            result = lib.reshape(x, shape)
        elif name == "mirror":  # combined with a view of itself
            axis = b % len(x.shape)
            result = lib.binary(x, lib.view(x, axis, slice(None, None, -1)), c)
        elif name == "concat":
            y = self.partner(x, b, lambda s, t: tuple(s) == tuple(t))
            result = lib.concat(x, y if y is not None else x, c % len(x.shape))
        else:
            result = lib.extra(name, x, b, c)
        if result is not None and size(result.shape) <= MAX_SIZE:
            self.pool.append(result)


def size(shape):
    return int(np.prod(shape, dtype=np.int64))


def broadcasts(s, t):
    return all(m == n or 1 in (m, n) for m, n in zip(s, t)) and size(result_shape(s, t)) <= MAX_SIZE


def result_shape(s, t):
    n = max(len(s), len(t))
    s, t = tuple(s) + (1,) * (n - len(s)), tuple(t) + (1,) * (n - len(t))
    return tuple(b if a == 1 else a for a, b in zip(s, t))


COMMON = ["leaf", "drop", "pause", "device", "unary", "unary", "number", "binary", "binary", "in-place", "reduce",
          "matmul", "view", "transpose", "reshape", "concat", "softmax", "mirror"]


class Owl:
    """Runs programs on owl. `devices`: ids to spread over; `waits`: how often (of 4) a pause waits for a value."""
    UNARY = ["tanh", "sigm", "relu", "abs", "sin", "neg", "square"]
    BINARY = ["add", "sub", "mult", "maximum"]
    ROUGH_UNARY = ["floor", "sign", "exp", "sqrt", "softplus", "gelu", "not zero", "to float64", "to int32",
                   "to float16", "to int64"]
    ROUGH_BINARY = ["div", "greater", "equal", "relu_back", "minimum"]

    def __init__(self, devices=(0,), waits=0, rough=False):
        import owl
        self.owl, self.devices, self.waits = owl, devices, waits
        self.names = COMMON + ["random", "where", "argmax", "choose", "conv"] * rough
        self.kinds = ["float32"] + ["int32", "float64", "bool", "int64", "float16"] * rough
        self.unaries, self.binaries = self.UNARY + self.ROUGH_UNARY * rough, self.BINARY + self.ROUGH_BINARY * rough

    def leaf(self, a, dtype):
        return self.owl.from_numpy((a > 0 if dtype == "bool" else a * (1 + 2 * (dtype == "int32"))).astype(dtype).T)

    def pause(self, x, n):
        if n % 4 < self.waits:
            x.wait_for_eval()
        elif n % 4 == 3:
            x.start_eval()

    def device(self, x, n):
        self.owl.set_device(self.devices[n % len(self.devices)])

    def unary(self, x, n):
        name = self.unaries[n % len(self.unaries)]
        if name == "neg":
            return 0 - x
        if name == "not zero":
            return x != 0
        if name.startswith("to "):
            return self.owl.elewise.clip(x, -1000, 1000).astype(name[3:])
        return getattr(self.owl.elewise, name)(x)

    def binary(self, x, y, n):
        name = self.binaries[n % len(self.binaries)]
        if "bool" == np.dtype(x.dtype).name == np.dtype(y.dtype).name and name == "sub":
            name = "add"
        f = {"add": lambda: x + y, "sub": lambda: x - y, "div": lambda: x / (y * y * 0 + 2), "greater": lambda: x > y,
             "equal": lambda: x == y}
        if name == "div":
            return x / (self.owl.elewise.square(y) + 1)
        return f[name]() if name in f else getattr(self.owl.elewise, name)(x, y)

    def number(self, x, n, number, swap):
        n %= 3
        if n == 0:
            return number + x if swap else x + number
        if n == 1:
            return number - x if swap else x - number
        return number * x if swap else x * number

    def in_place(self, box, y, n):
        x = box.pop()
        if n % 2:
            x += y
        else:
            x -= y * 0.5
        return x

    def reduce(self, x, n, axis, d):
        name = ["sum", "max", "mean", "min"][n % 4]
        if x.size == 0:
            return x.sum(axis)
        return getattr(x, name)() if d % 5 == 0 else getattr(x, name)([axis, 0] if d % 7 == 0 and axis else axis)

    def matmul(self, x, y):
        return x * y

    def view(self, x, axis, s):
        return x[(slice(None),) * axis + (s,)]

    def transpose(self, x, order):
        return x.trans() if order == (1, 0) else x.transpose(list(order))

    def reshape(self, x, shape):
        return x.reshape(list(shape))

    def concat(self, x, y, axis):
        return self.owl.concat([x, y], axis)

    def choose(self, x, axis, b, c):
        owl = self.owl
        if c % 6 == 5:
            return owl.matmul(x.transpose([1, 0, *range(2, x.ndim)]), x) if x.ndim > 2 else None
        if c % 6 == 0:
            return owl.sort(x, axis)
        if c % 6 == 1:
            return owl.argsort(x, axis)
        if c % 6 == 2:
            return owl.topk(x, b % x.shape[axis] + 1, axis)[0]
        indices = owl.from_numpy(((np.arange(b % 40) * 7 + c) % x.shape[axis]).astype(np.int32))
        taken = owl.take(x, indices, axis)
        return taken if c % 6 == 3 or x.dtype == "bool" else owl.put_add(x, indices, taken, axis)

    def extra(self, name, x, b, c):
        owl = self.owl
        if name == "softmax":
            if x.ndim < 2 or x.size == 0:
                return None
            return owl.conv.softmax(x if x.dtype in ("float32", "float64") else x * 1.0)
        if name == "random":
            return [owl.randn, owl.rand, lambda s: owl.randb(s, 0.3)][b % 3](x.shape)
        if name == "where":
            return owl.elewise.where(x > 0, x, NUMBERS[c % len(NUMBERS)])
        if name == "argmax":
            return x.argmax(b % x.ndim) if x.size else None
        if name == "choose":
            return self.choose(x, b % x.ndim, b, c) if x.size else None
        if x.size == 0 or x.size % 4 or x.dtype != "float32":
            return None
        images, pool = x.reshape([2, 2, 1, x.size // 4]), owl.conv.Pooler(2, 2, 1, 1)
        conv, w = owl.conv.Convolver(1, 1, 1, 1), owl.full([2, 2, 1, 3], 0.25)
        if c % 7 == 6:
            return self.step_of_convolutions(images, b)
        if c % 7 == 1:
            return conv.ff(images, w, owl.full([3], 0.5))
        if c % 7 == 2:
            return conv.bp(conv.ff(images, w, owl.zeros([3])), images, w)
        if c % 7 == 3:
            return conv.weight_grad(conv.ff(images, w, owl.zeros([3])), images, w)
        if c % 7 == 4:
            y = pool.ff(images)
            return pool.bp(y, y, images)
        if c % 7 == 5:
            p = owl.conv.log_softmax(images, owl.conv.soft_op.channel)
            return owl.conv.softmax_back(images, p)
        return pool.ff(images)

    def step_of_convolutions(self, images, n):
        """Forward and backward pass through layers of many channels; `n` chooses the intermediates that are kept."""
        owl, ele = self.owl, self.owl.elewise
        kind = owl.conv.pool_op.avg if n % 2 else owl.conv.pool_op.max
        conv, pool = owl.conv.Convolver(1, 1, 1, 1), owl.conv.Pooler(2, 2, 1, 1, op=kind)
        w1, w2, bias = owl.full([2, 2, 1, 8], 0.25), owl.full([3, 3, 8, 9], -0.125), owl.full([9], 0.5)
        a1 = ele.relu(conv.ff(images, w1, owl.zeros([8])))
        p1 = pool.ff(a1)
        a2 = ele.tanh(conv.ff(p1, w2, bias) * 0.5) + p1[:, :, :1, :]
        s1 = ele.relu_back(pool.bp(conv.bp(a2, p1, w2), p1, a1), a1)
        results = conv.bp(s1, images, w1), conv.weight_grad(a2, p1, w2), conv.bias_grad(s1), p1, ele.square(s1), a2.max(2)
        return results[n // 2 % len(results)]


class Bounded:
    """A float64 value and how far a float32 evaluation may be from it, element by element."""

    def __init__(self, v, e=0.0):
        self.v, self.e = np.asarray(v, np.float64), np.broadcast_to(np.asarray(e, np.float64), np.shape(v))

    shape = property(lambda self: self.v.shape)


class Numpy:
    """Runs the same programs in float64 and bounds the error: `U` of each result plus the operands' errors."""
    names, kinds = COMMON, ["float32"]
    U = 2.0 ** -22  # two units in the last place of float32

    def leaf(self, a, dtype):
        return Bounded(a.astype(np.float32))

    def pause(self, x, n):
        pass

    device = pause

    def rounded(self, v, e, terms=1):
        e = e + self.U * terms * np.abs(v) + 1e-37
        return Bounded(v, np.where(np.abs(v) + e < 1e30, e, np.inf))  # no bound near overflow

    def unary(self, x, n):
        name = Owl.UNARY[n % len(Owl.UNARY)]
        v, slope = {"tanh": (np.tanh, 1), "sigm": (lambda v: 1 / (1 + np.exp(-v)), 0.25), "abs": (np.abs, 1),
                    "relu": (lambda v: np.maximum(v, 0), 1), "sin": (np.sin, 1), "neg": (np.negative, 1),
                    "square": (np.square, 2 * np.abs(x.v) + x.e)}[name]
        with np.errstate(over="ignore"):
            return self.rounded(v(x.v), slope * x.e + self.U * (name == "sin"), 2)

    def binary(self, x, y, n):
        from reference import line_up
        (a, b), (ea, eb) = line_up(x.v, y.v), line_up(x.e, y.e)
        name = Owl.BINARY[n % len(Owl.BINARY)]
        if name == "mult":
            return self.rounded(a * b, np.abs(a) * eb + np.abs(b) * ea + ea * eb)
        if name == "maximum":
            return Bounded(np.maximum(a, b), np.maximum(ea, eb) + np.zeros_like(a * b))
        return self.rounded(a + b if name == "add" else a - b, ea + eb)

    def number(self, x, n, number, swap):
        f = np.float64(np.float32(number))
        if n % 3 == 2:
            return self.rounded(x.v * f, x.e * abs(f))
        return self.rounded((1 if n % 3 == 0 or not swap else -1) * x.v + (f if n % 3 == 0 or swap else -f), x.e)

    def in_place(self, box, y, n):
        x = box.pop()
        return self.binary(x, y, 0) if n % 2 else self.binary(x, self.number(y, 2, 0.5, 0), 1)

    def reduce(self, x, n, axis, d):
        if x.v.size == 0:
            n = d = 1  # like Owl.reduce: a sum along one axis
        axes = tuple(range(x.v.ndim)) if d % 5 == 0 else (axis, 0) if d % 7 == 0 and axis else (axis,)
        name = ["sum", "max", "mean", "min"][n % 4] if x.v.size else "sum"
        kw = dict(axis=axes, keepdims=True)
        if name in ("max", "min"):
            out = Bounded(getattr(np, name)(x.v, **kw), x.e.max(**kw))
        else:
            count = size([x.shape[i] for i in axes])
            scale = 1 / count if name == "mean" else 1
            slack = self.U * min(count, 100) * np.abs(x.v).sum(**kw)
            out = self.rounded(x.v.sum(**kw) * scale, (x.e.sum(**kw) + slack) * scale)
        return Bounded(out.v.reshape(1), out.e.reshape(1)) if d % 5 == 0 else out

    def matmul(self, x, y):
        a, b = np.abs(x.v), np.abs(y.v)
        return self.rounded(x.v @ y.v, a @ y.e + x.e @ b + x.e @ y.e + self.U * min(x.shape[1], 100) * (a @ b))

    def both(self, x, f):
        return Bounded(f(x.v), f(x.e))

    def view(self, x, axis, s):
        return self.both(x, lambda a: a[(slice(None),) * axis + (s,)])

    def transpose(self, x, order):
        return self.both(x, lambda a: a.transpose(order))

    def reshape(self, x, shape):
        return self.both(x, lambda a: a.reshape(shape, order="F"))

    def concat(self, x, y, axis):
        return Bounded(np.concatenate([x.v, y.v], axis), np.concatenate([x.e, y.e], axis))

    def extra(self, name, x, b, c):
        if x.v.ndim < 2 or x.v.size == 0:
            return None
        axes = dict(axis=tuple(range(x.v.ndim - 1)), keepdims=True)
        top = x.v.max(**axes)
        y = np.exp(x.v - top)
        y /= y.sum(**axes)
        exponent = 4 * x.e.max(**axes) + self.U * (8 + 2 * np.abs(x.v - top))
        return Bounded(y, y * np.expm1(np.minimum(exponent, 50)) * (1 + self.U * 100) + 1e-37)


def values(pool):
    return [x.to_numpy().T for x in pool]


def digest(arrays):
    h = hashlib.sha256()
    for a in arrays:
        h.update(f"{a.dtype} {a.shape}".encode())
        h.update(np.ascontiguousarray(a).tobytes())
    return h.hexdigest()


def evaluate(program, seed=0, shapes=SHAPES, **options):
    """The bits of every value of one program on owl."""
    import owl
    owl.seed(seed)
    owl.set_device(0)
    lib = Owl(**options)
    arrays = values(Machine(lib, shapes).run(program))
    owl.set_device(0)
    return arrays


def main(seed, count):
    import owl
    devices = (0, owl.create_cpu_device())
    for i in range(seed, seed + count):
        rng = random.Random(i)
        shapes = LARGE if i % 4 == 0 else SHAPES
        print(i, digest(evaluate(random_program(rng), i, shapes, devices=devices, rough=True, waits=i % 3)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
