"""owl.checkpoint: operations recorded again in place of values that are kept."""

import threading

import numpy as np
import pytest

import owl
from conftest import SOAK, line_of, same_bits, settle, window
from programs import Owl
from reference import arr, val
from test_gradients import LAYOUTS, ROWS, Noting, Row, random_programs

ele = owl.elewise
mult = ele.mult


def dropout(x, p=0.5):
    return mult(x, owl.stop_gradient(owl.randb(x.shape, 1 - p))) / (1 - p)


def gradients_with(wrap, function, *arrays, order=1):
    """From the same place of the generator: the value and the gradients of a loss that calls wrap(function) twice."""
    owl.seed(7)
    wrapped = wrap(function)

    def loss(*xs):
        y = wrapped(*xs)
        return (ele.square(y).sum() + wrapped(*xs).sum()) / y.size

    if order == 2:
        first = owl.grad(loss, tuple(range(len(arrays))))
        return [val(g) for g in owl.grad(lambda *xs: sum(ele.square(g).sum() for g in first(*xs)),
                                         tuple(range(len(arrays))))(*arrays)]  # fmt: skip
    value, gradients = owl.value_and_grad(loss, tuple(range(len(arrays))))(*arrays)
    return [val(value), *map(val, gradients), owl.random_state()]


def plain(function):
    return function


def check_same(function, *arrays):
    for a, b in zip(gradients_with(plain, function, *arrays), gradients_with(owl.checkpoint, function, *arrays)):
        assert same_bits(a, b) if isinstance(a, np.ndarray) else a == b


def floats(*shape, seed=1):
    return arr(np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_operation_has_the_same_bits(name, layout):
    row = Row(name, layout)
    function = row.function

    def inside(*xs):  # what it reads is made inside too, and its results are read there
        results = function(*(x * 1.0 for x in xs))
        return [y * 1.0 for y in results] if isinstance(results, list) else results * 1.0

    row.function = inside
    without = row.gradients(row.arrays())
    row.function = owl.checkpoint(inside)
    for a, b in zip(without, row.gradients(row.arrays())):
        assert same_bits(val(a), val(b))


FUNCTIONS = {
    "layers": lambda w, x: ele.tanh(w * ele.relu(w * x)),
    "dropout": lambda w, x: dropout(ele.tanh(w * dropout(ele.tanh(w * x)))),
    "numbers drawn and computed with": lambda w, x: ele.exp(mult(owl.randn(x.shape), w * x)) + mult(ele.square(x), owl.rand([1, 1])),
    "views": lambda w, x: mult(ele.exp((w * x)[1:, ::-1]), ele.sin(x[:-1])).reshape(-1)[3:17].reshape(2, 7),
    "a view of what came in": lambda w, x: ele.exp(x.T[2:4]) * w[:4, :6].T,
    "masks and places": lambda w, x: ele.where((w * x) > 0.1, ele.exp(w * x), ele.square(x)) / (1.0 + (w * x).argmax(0)),
    "other types": lambda w, x: (ele.exp(w.astype("float64")) * ele.exp(x.astype("float64"))).astype("float32"),
    "int64 beyond float64's digits": lambda w, x: mult(ele.exp(w * x), ((x > 0).astype("int64") + (2**53 + 1)) % 1000),
    "integers beyond int64": lambda w, x: mult(ele.exp(w * x), ele.where((x * 10.0).astype("int32") < 2**70, 2.0, 3.0)),
    "constants": lambda w, x: mult(ele.exp(owl.stop_gradient(w * x)), ele.square(w * x)),
    "data made inside": lambda w, x: mult(ele.exp(w * x), arr(np.arange(6, dtype=np.float32).reshape(1, 6))),
    "an operation of one's own": lambda w, x: owl.op(lambda a, b: a * b, lambda e, y, a, b: (e * b, e * a))(ele.exp(w * x), ele.sin(w * x)),
    "gradients inside": lambda w, x: mult(owl.grad(lambda a: ele.exp(ele.square(a)).sum())(ele.sin(w * x)), x),
    "a checkpoint inside": lambda w, x: ele.exp(owl.checkpoint(lambda a: dropout(ele.sin(w * a)))(ele.tanh(w * x))),
    "what came in goes out": lambda w, x: ele.exp(w) * 1.0 + (lambda a: a)(x),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_bits(name):
    check_same(FUNCTIONS[name], floats(6, 6), floats(6, 6, seed=2))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives(name):
    if name == "an operation of one's own":
        pytest.skip("the backward function of an operation of one's own has no gradient")
    arrays = floats(6, 6), floats(6, 6, seed=2)
    for a, b in zip(gradients_with(plain, FUNCTIONS[name], *arrays, order=2),
                    gradients_with(owl.checkpoint, FUNCTIONS[name], *arrays, order=2)):  # fmt: skip
        assert same_bits(a, b)


@pytest.mark.parametrize("name", ["layers", "dropout", "a checkpoint inside"])
def test_third_derivatives(name):
    function, (w, x) = FUNCTIONS[name], (floats(6, 6), floats(6, 6, seed=2))

    def third(wrap):
        owl.seed(7)
        first = owl.grad(lambda w: ele.square(wrap(function)(w, x)).mean())
        second = owl.grad(lambda w: ele.square(first(w)).sum())
        return val(owl.grad(lambda w: ele.square(second(w)).sum())(w))

    assert same_bits(third(plain), third(owl.checkpoint)) and np.any(third(plain))


def test_a_tape_opened_for_the_gradient_alone_sees_what_it_would_without():
    """What is recorded again belongs to the forward pass, which this tape did not see."""
    w, x = floats(6, 6), floats(6, 6, seed=2)

    def second(wrap):
        with owl.Tape() as inner:
            y = ele.square(wrap(FUNCTIONS["layers"])(w, x)).sum()
        with owl.Tape() as outer:
            loss = ele.square(inner.gradient(y, w)).sum()
        return val(outer.gradient(loss, w))

    assert same_bits(second(plain), second(owl.checkpoint)) and np.any(second(plain))


def test_many_gradients_under_one_tape_leave_nothing_behind():
    w, x = floats(6, 6), floats(6, 6, seed=2)
    step = owl.grad(lambda w: ele.square(owl.checkpoint(FUNCTIONS["layers"])(w, x)).mean())

    def steps(count):
        with owl.Tape() as tape:
            v = w
            for _ in range(count):
                v = v - 0.1 * step(v)
            y = v.sum()
        val(tape.gradient(y, w))
        del tape, v, y
        return settle()["live_nodes"]

    assert steps(10) >= steps(30) - 5


def gradients_of(program, wrap):
    owl.seed(1)

    def run():
        machine = Noting(Owl(rough=True))
        machine.run(program)
        numbers = [ele.tanh(x).mean() for x in machine.pool if x.dtype.kind == "f" and x.size]
        return sum(numbers, owl.zeros([1])), machine.leaves

    with owl.Tape() as tape:
        y, leaves = wrap(run)()
    return [val(y), *map(val, tape.gradient(y, leaves, unused="zeros"))]


@pytest.mark.parametrize("which", range(4))
def test_random_programs(which):
    """The whole program in a checkpoint, with any window: the same bits."""
    for program in random_programs(40 * SOAK)[which::4]:
        without = gradients_of(program, plain)
        with window((1, 7, 64, 1 << 30)[which], -1):
            inside = gradients_of(program, owl.checkpoint)
        assert len(without) == len(inside) and all(map(same_bits, without, inside)), program


def test_python_is_called_once_and_state_moves_once():
    calls, state = [], {"mean": owl.zeros([1, 1])}

    @owl.checkpoint
    def layer(x):
        calls.append(1)
        state["mean"] = 0.9 * state["mean"] + 0.1 * owl.stop_gradient(x).mean().reshape(1, 1)
        return ele.exp(x)

    owl.seed(3)
    x = floats(4, 4)
    with owl.Tape() as tape:
        y = layer(layer(x)).sum()
    tape.gradient(y, x).to_numpy()
    assert len(calls) == 2 and owl.random_state() == (3, 0)


def test_a_value_that_leaves_by_another_way_has_its_gradient():
    left = []

    @owl.checkpoint
    def layer(x):
        left.append(ele.exp(x))
        return ele.sin(left[-1])

    x = floats(5)
    with owl.Tape() as tape:
        y = layer(x)
        loss = y.sum() + ele.square(left[0]).sum()
    e = np.exp(val(x))
    np.testing.assert_allclose(val(tape.gradient(loss, x)), np.cos(e) * e + 2 * e * e, rtol=1e-5)


def test_an_inner_value_is_a_source():
    inner = []

    @owl.checkpoint
    def layer(x):
        inner.append(ele.exp(x))
        return ele.square(inner[0]).sum()

    x = floats(5)
    with owl.Tape() as tape:
        y = layer(x)
    np.testing.assert_allclose(val(tape.gradient(y, inner[0])), 2 * np.exp(val(x)), rtol=1e-6)


def test_a_source_on_which_it_does_not_depend():
    x, w = floats(5), floats(5)
    with owl.Tape() as tape:
        y = owl.checkpoint(lambda a, b: (ele.exp(b), ele.exp(a).sum())[1])(x, w)
    with pytest.raises(owl.Error, match="does not depend on source 1"):
        tape.gradient(y, [x, w])


def test_tapes_that_take_several_gradients_and_other_threads():
    x = floats(5)
    with owl.Tape(persistent=True) as tape:
        y = owl.checkpoint(lambda a: ele.exp(ele.sin(ele.exp(a))))(x).sum()
    got = [val(tape.gradient(y, x))]
    thread = threading.Thread(target=lambda: got.append(val(tape.gradient(y, x))))
    thread.start()
    thread.join()
    assert same_bits(got[0], got[1])


def test_tapes_around_and_inside_see_what_they_should():
    x = floats(5)
    with owl.Tape() as outer:

        @owl.checkpoint
        def layer(a):
            with owl.Tape() as inner:
                b = ele.exp(ele.sin(a))
                total = b.sum()
            return mult(inner.gradient(total, a), b)

        with owl.Tape() as middle:
            y = layer(x).sum()
    a, b = val(middle.gradient(y, x)), val(outer.gradient(y, x))
    assert same_bits(a, b)
    s, c, e = np.sin(val(x)), np.cos(val(x)), np.exp(np.sin(val(x)))
    np.testing.assert_allclose(a, e * e * (2 * c * c - s), rtol=1e-5, atol=1e-6)


def test_without_a_tape_it_is_the_function():
    @owl.checkpoint
    def layer(x, scale=1.0):
        """Words."""
        return ele.exp(x) * scale, [x]

    x = floats(3)
    y, (same,) = layer(x, scale=2.0)
    assert same is x and layer.__doc__ == "Words." and same_bits(val(y), val(ele.exp(x) * 2.0))


def test_an_exception_ends_it():
    @owl.checkpoint
    def layer(x):
        kept.append(ele.exp(x))
        raise KeyError("mine")

    kept, x = [], floats(3)
    with owl.Tape() as tape:
        with pytest.raises(KeyError, match="mine"):
            layer(x)
        y = ele.square(kept[0]).sum()
    np.testing.assert_allclose(val(tape.gradient(y, x)), 2 * np.exp(2 * val(x)), rtol=1e-6)


def test_what_is_no_function():
    with pytest.raises(TypeError, match="checkpoint: fn must be a function, not NArray"):
        owl.checkpoint(floats(3))


def test_an_operation_without_a_backward_function_is_named():
    x = floats(3)
    with owl.Tape() as tape:
        y = owl.checkpoint(lambda a: owl.op(lambda b: b * 2, name="twice")(ele.exp(a)).sum())(x)
    with pytest.raises(owl.Error, match="the operation twice, .*test_checkpoint.py.* has no backward function"):
        tape.gradient(y, x)


def test_a_failure_names_the_forward_line(script):
    done = script("""
        import owl
        calls = []
        def forward(x):
            calls.append(1)
            if len(calls) == 2: raise ValueError("the second time")
            return x * 2
        twice = owl.op(forward, lambda e, y, x: e * 2)
        def layer(x):
            return owl.exp(twice(owl.exp(x)))          # here
        x = owl.ones([3])
        with owl.Tape() as tape:
            y = owl.checkpoint(layer)(x).sum()
        print(y.item())
        g = tape.gradient(y, x)
        try:
            g.to_numpy()
        except owl.Error as e:
            print(e)
    """)
    assert f"user_script.py:{line_of(done.path, '# here')}" in done.stdout and "the second time" in done.stdout


MEMORY = """
    import owl
    owl.set_memory_limit(0)
    owl.seed(1)
    w, x = owl.randn([64, 64], 0.0, 0.1), owl.randn([64, 4096])
    def block(x):
        for _ in range(4):
            x = {layer}
        return x
    block = {wrap}(block)
    owl.wait_for_all()
    with owl.Tape() as tape:
        y = x
        for _ in range(6):
            y = block(y)
        loss = owl.square(y).mean()
    g = tape.gradient(loss, w)
    del y, loss, tape
    g.to_numpy()
    print(owl.memory_stats()["peak"] // (4 * 64 * 4096))
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_inner_values_are_not_kept(script, threads):
    """24 layers of two values each; with checkpoints one a block, and those of the block that is walked back over."""
    layer = "owl.tanh(w * x) * 1.1"
    peaks = [int(script(MEMORY.format(layer=layer, wrap=wrap), env={"OWL_NUM_THREADS": str(threads)}).stdout)
             for wrap in ("", "owl.checkpoint")]  # fmt: skip
    assert peaks[0] >= 48 and peaks[1] <= 24, peaks


def test_a_mask_computed_before_it_is_used():
    x, mask = floats(20), owl.stop_gradient(owl.randb([20], 0.5))
    for ready in (False, True):
        assert not ready or val(mask).size
        assert same_bits(val(owl.grad(lambda a: mult(ele.exp(a), mask).sum())(x)), val(mult(ele.exp(x), mask)))


@pytest.mark.parametrize("threads", [1, 2])
def test_dropout_keeps_no_mask(script, threads):
    """24 layers, of which tanh keeps its result."""
    layer = "owl.mult(owl.tanh(w * x), owl.stop_gradient(owl.randb(x.shape, 0.9)))"
    peak = int(script(MEMORY.format(layer=layer, wrap=""), env={"OWL_NUM_THREADS": str(threads)}).stdout)
    assert peak <= 2 * 24 + 8, peak
