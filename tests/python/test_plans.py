"""The plans of whole training steps: tasks, operations fused in each, memory taken over. Equal values would not reveal
a lost optimisation."""

import contextlib

import numpy as np
import pytest

import owl
from conftest import unflushed, window

ele = owl.elewise
BATCH = 256
FEW = 48  # images: fewer than run in strips (test_strips.py)


def operations(plan):
    return [task.operations for task in plan.tasks]


def ready(*arrays):
    owl.wait_for_all()
    return arrays


@pytest.fixture
def mlp_step():
    x, label = ready(owl.rand([784, BATCH]), owl.rand([10, BATCH]))
    parameters = ready(owl.randn([256, 784]), owl.zeros([256, 1]), owl.randn([10, 256]), owl.zeros([10, 1]))

    def step():
        w1, b1, w2, b2 = parameters
        a1 = ele.relu(w1 * x + b1)
        s2 = owl.conv.softmax(w2 * a1 + b2) - label
        s1 = ele.relu_back(w2.trans() * s2, a1)
        w1 -= 0.1 * (s1 * x.trans())
        b1 -= 0.1 * s1.sum(1)
        w2 -= 0.1 * (s2 * a1.trans())
        b2 -= 0.1 * s2.sum(1)
        return w1, b1, w2, b2

    return step


def test_a_step_of_the_mlp(mlp_step):
    plan = owl.explain(mlp_step)
    assert operations(plan) == [
        ["matmul", "add", "relu"],
        ["matmul", "add"],
        ["softmax", "sub"],
        ["matmul", "relu_back"],
        ["matmul", "mult", "sub"],
        ["sum", "mult", "sub"],
        ["matmul", "mult", "sub"],
        ["sum", "mult", "sub"],
    ]
    assert all(task.outputs == 1 for task in plan.tasks)
    assert not [task for task in plan.tasks if task.kind == "copy"]
    assert plan.tasks[2].reuses == 1  # the softmax takes over the scores' memory
    # The live set: hidden values, their error, and what is returned.
    assert sum(task.bytes_written for task in plan.tasks) == 4 * (2 * 256 * 256 + 256 * 784 + 256 + 2 * 10 * 256 + 2560 + 10)


def test_a_step_of_the_mlp_runs_as_planned(mlp_step):
    plan = owl.explain(mlp_step)
    hold = owl._owl.HoldWindow()
    try:
        before = owl.stats()
        values = mlp_step()
        owl.wait_for_all()
        after = owl.stats()
    finally:
        hold.release()
    assert after["kernels"] - before["kernels"] == len(plan) and len(values) == 4
    assert after["bytes_written"] - before["bytes_written"] == sum(task.bytes_written for task in plan.tasks)


@pytest.fixture
def cnn_step():
    conv1, conv2 = owl.conv.Convolver(0, 0, 1, 1), owl.conv.Convolver(2, 2, 1, 1)
    pool1, pool2 = owl.conv.Pooler(2, 2, 2, 2), owl.conv.Pooler(3, 3, 3, 3)
    shapes = [5, 5, 1, 16], [16], [5, 5, 16, 32], [32], [10, 512], [10, 1]
    parameters, velocities = ready(*map(owl.randn, shapes)), ready(*map(owl.zeros, shapes))
    x, label = ready(owl.rand([28, 28, 1, FEW]), owl.rand([10, FEW]))

    def step():
        w1, b1, w2, b2, w3, b3 = parameters
        a1 = ele.relu(conv1.ff(x, w1, b1))
        p1 = pool1.ff(a1)
        a2 = ele.relu(conv2.ff(p1, w2, b2))
        p2 = pool2.ff(a2)
        flat = p2.reshape([512, FEW])
        s3 = (owl.conv.softmax(w3 * flat + b3) - label) / FEW
        sp2 = (w3.trans() * s3).reshape(p2.shape)
        s2 = ele.relu_back(pool2.bp(sp2, p2, a2), a2)
        s1 = ele.relu_back(pool1.bp(conv2.bp(s2, p1, w2), p1, a1), a1)
        gradients = [conv1.weight_grad(s1, x, w1), conv1.bias_grad(s1), conv2.weight_grad(s2, p1, w2),
                     conv2.bias_grad(s2), s3 * flat.trans(), s3.sum(1)]  # fmt: skip
        moved = [0.75 * v - 0.05 * (g + 5e-4 * p) for v, g, p in zip(velocities, gradients, parameters, strict=True)]
        return moved + [p + v for p, v in zip(parameters, moved, strict=True)]

    return step


def test_a_step_of_the_cnn(cnn_step):
    update = ["mult", "mult", "add", "mult", "sub", "add"]  # a velocity and its parameter, in one task
    plan = owl.explain(cnn_step)
    assert operations(plan) == [
        ["conv", "relu"],
        ["pool"],
        ["conv", "relu"],
        ["pool"],
        ["matmul", "add"],
        ["softmax", "sub", "div"],
        ["matmul"],
        ["pool_back", "relu_back"],
        ["conv_back_data"],
        ["pool_back", "relu_back"],
        ["conv_back_weight", *update],
        ["conv_back_bias", *update],
        ["conv_back_weight", *update],
        ["conv_back_bias", *update],
        ["matmul", *update],
        ["sum", *update],
    ]
    assert not [task for task in plan.tasks if task.kind == "copy"]


@pytest.fixture
def automatic():
    """The steps of the MLP and the CNN, each with its gradients by hand and by a tape."""
    x, image, label = ready(owl.rand([784, FEW]), owl.rand([28, 28, 1, FEW]), owl.rand([10, FEW]))
    mlp = ready(owl.randn([256, 784]), owl.zeros([256, 1]), owl.randn([10, 256]), owl.zeros([10, 1]))
    cnn = ready(*map(owl.randn, ([5, 5, 1, 16], [16], [5, 5, 16, 32], [32], [10, 512], [10, 1])))
    conv1, conv2 = owl.conv.Convolver(0, 0, 1, 1), owl.conv.Convolver(2, 2, 1, 1)
    pool1, pool2 = owl.conv.Pooler(2, 2, 2, 2), owl.conv.Pooler(3, 3, 3, 3)

    def of_mlp(w1, b1, w2, b2):
        return w2 * ele.relu(w1 * x + b1) + b2

    def of_cnn(w1, b1, w2, b2, w3, b3):
        p1 = pool1.ff(ele.relu(conv1.ff(image, w1, b1)))
        return w3 * pool2.ff(ele.relu(conv2.ff(p1, w2, b2))).reshape([512, FEW]) + b3

    def mlp_by_hand(w1, b1, w2, b2):
        a1 = ele.relu(w1 * x + b1)
        s2 = owl.conv.softmax(w2 * a1 + b2) - label
        s1 = ele.relu_back(w2.trans() * s2, a1)
        return s1 * x.trans(), s1.sum(1), s2 * a1.trans(), s2.sum(1)

    def cnn_by_hand(w1, b1, w2, b2, w3, b3):
        a1 = ele.relu(conv1.ff(image, w1, b1))
        p1 = pool1.ff(a1)
        a2 = ele.relu(conv2.ff(p1, w2, b2))
        p2 = pool2.ff(a2)
        flat = p2.reshape([512, FEW])
        s3 = owl.conv.softmax(w3 * flat + b3) - label
        s2 = ele.relu_back(pool2.bp((w3.trans() * s3).reshape(p2.shape), p2, a2), a2)
        s1 = ele.relu_back(pool1.bp(conv2.bp(s2, p1, w2), p1, a1), a1)
        return (conv1.weight_grad(s1, image, w1), conv1.bias_grad(s1), conv2.weight_grad(s2, p1, w2), conv2.bias_grad(s2),
                s3 * flat.trans(), s3.sum(1))  # fmt: skip

    def by_tape(network):
        def gradients(*parameters):
            with owl.Tape() as tape:
                scores = network(*parameters)
            return tape.gradient(scores, parameters, seed=owl.conv.softmax(scores) - label)

        return gradients

    def by_loss(network):
        def gradients(*parameters):
            with owl.Tape() as tape:
                loss = owl.nn.softmax_cross_entropy(network(*parameters), label, "sum")
            return tape.gradient(loss, parameters)

        return gradients

    def step(gradients, parameters):
        return lambda: [p - 0.1 * g for p, g in zip(parameters, gradients(*parameters), strict=True)]

    return {"mlp": [step(g, mlp) for g in (mlp_by_hand, by_tape(of_mlp), by_loss(of_mlp))],
            "cnn": [step(g, cnn) for g in (cnn_by_hand, by_tape(of_cnn), by_loss(of_cnn))]}  # fmt: skip


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_automatic_gradients_plan_into_what_those_by_hand_do(automatic, network):
    by_hand, by_tape, _ = automatic[network]
    want, got = owl.explain(by_hand), owl.explain(by_tape)
    for field in ("operations", "shape", "bytes_read", "bytes_written", "reuses", "channels_last", "kind"):
        assert [getattr(task, field) for task in got.tasks] == [getattr(task, field) for task in want.tasks], field
    for a, b in zip(by_tape(), by_hand(), strict=True):
        assert a.to_numpy().tobytes() == b.to_numpy().tobytes()


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_a_loss_costs_what_gradients_by_hand_cost(automatic, network):
    """As many tasks, and as many bytes written: of the loss itself, which no step reads, nothing is computed."""
    by_hand, _, by_loss = automatic[network]
    want, got = owl.explain(by_hand).tasks, owl.explain(by_loss).tasks
    assert len(got) == len(want)
    assert [task.bytes_written for task in got] == [task.bytes_written for task in want]
    assert [task.operations for task in got if "log_softmax_back" in task.operations] == [["mult", "log_softmax_back"]]


def test_a_tape_writes_nothing_that_is_not_read():
    """500 operations, planned in several batches. The result of each tanh, which its rule reads, is read by a product anyway."""
    w, x = ready(owl.randn([32, 32]), owl.randn([32, 8]))

    def written(tape):
        before = owl.stats()["bytes_written"]
        with tape:
            y = x
            for _ in range(100):
                y = ele.tanh(((w * y) * 0.5 + 0.25) - 0.125)
            owl.wait_for_all()
        return owl.stats()["bytes_written"] - before, y

    with window(64, -1):
        assert written(owl.Tape())[0] == written(contextlib.nullcontext())[0]


def test_images_stay_channels_last_between_convolutions(cnn_step):
    plan = owl.explain(cnn_step)
    images = {tuple(task.shape) for task in plan.tasks if task.channels_last}
    assert images == {(24, 24, 16, FEW), (12, 12, 16, FEW), (12, 12, 32, FEW)}
    assert [t.operations[0] for t in plan.tasks if t.channels_last] == [
        "conv", "pool", "conv", "pool_back", "conv_back_data", "pool_back"]  # fmt: skip
    hold = owl._owl.HoldWindow()
    try:
        values = cnn_step()
        owl.wait_for_all()
    finally:
        hold.release()
    with owl.eager():
        alone = cnn_step()
    for x, y in zip(values, alone, strict=True):
        assert x.to_numpy().tobytes() == y.to_numpy().tobytes()


LAYERS = {
    "a program between": (lambda a, conv: ele.tanh(conv(ele.exp(a * 0.1) + 1.0)), ["conv", "conv"]),
    "a skip connection": (lambda a, conv: conv(a) + a, ["conv", "conv"]),
    "a reader that knows planes alone": (lambda a, conv: conv(a) + a.sum(2), ["conv", "add"]),
    "an operand of planes": (lambda a, conv: conv(a + owl.ones([6, 6, 8, 3])), ["conv"]),
    "a broadcast operand": (lambda a, conv: conv(a + owl.ones([6, 1, 8])), ["conv", "add", "conv"]),
    "a view": (lambda a, conv: conv(a) + a[::-1], []),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_layout_between_two_convolutions(layer):
    body, channels_last = LAYERS[layer]
    convolver = owl.conv.Convolver(1, 1, 1, 1)
    x, w, w2, b = ready(owl.randn([6, 6, 2, 3]), owl.randn([3, 3, 2, 8]), owl.randn([3, 3, 8, 8]), owl.randn([8]))

    def run():
        return convolver.ff(body(convolver.ff(x, w, b), lambda a: convolver.ff(a, w2, b)), w2, b)

    assert [task.operations[0] for task in owl.explain(run).tasks if task.channels_last] == channels_last
    hold = owl._owl.HoldWindow()
    try:
        value = run().to_numpy()
    finally:
        hold.release()
    with owl.eager():
        assert value.tobytes() == run().to_numpy().tobytes()


def test_double_images_keep_their_layout():
    convolver, pool = owl.conv.Convolver(1, 1, 1, 1), owl.conv.Pooler(2, 2, 2, 2)
    rng = np.random.default_rng(0)
    x, w, b = ready(*[owl.from_numpy(rng.normal(size=s)) for s in [(3, 8, 6, 6), (8, 8, 3, 3), (8,)]])
    assert x.dtype == "float64"

    def run():
        single = [convolver.ff(x, w, b), pool.ff(x), convolver.bp(x, x, w), pool.bp(pool.ff(x), pool.ff(x), x)]
        return [pool.ff(y.astype("float32")) for y in single] + [pool.ff((single[0] > 0).astype("float32"))]

    hold = owl._owl.HoldWindow()
    try:
        values = run()
        owl.wait_for_all()
    finally:
        hold.release()
    with owl.eager():
        for value, alone in zip(values, run(), strict=True):
            assert value.to_numpy().tobytes() == alone.to_numpy().tobytes()


@pytest.mark.parametrize("ends", ["with values", "with a sum"])
def test_all_values_of_a_long_chain_may_be_held(ends):
    x, _ = ready(owl.rand([30, 30]), None)
    hold = owl._owl.HoldWindow()
    try:
        values = [x * x if ends == "with values" else x + 1.0]
        for _ in range(64):
            values.append(values[-1] + 1.0)
        total = values[63].sum(0)
        owl.wait_for_all()
    finally:
        hold.release()
    first = values[0].to_numpy()
    for value in values[1:]:
        first = first + np.float32(1)
        assert value.to_numpy().tobytes() == first.tobytes()
    np.testing.assert_allclose(total.to_numpy()[:, 0], values[63].to_numpy().sum(1), rtol=1e-5)


# --- reductions at the end: one pass over memory for the values and their reductions


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "argmax", "argmin"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_reduction_reads_what_is_computed_for_it(name, axis):
    x, y = ready(owl.rand([300, 40]), owl.rand([300, 1]))

    def reduced():
        values = ele.tanh(x * 2.0 - 1.0) + y
        return getattr(values, name)() if axis is None else getattr(values, name)(axis)

    (task,) = owl.explain(reduced).tasks
    assert task.operations == ["mult", "sub", "tanh", "add", name] and task.outputs == 1
    values = (ele.tanh(x * 2.0 - 1.0) + y).to_numpy()
    owl.wait_for_all()
    alone = owl.from_numpy(values)
    want = getattr(alone, name)() if axis is None else getattr(alone, name)(axis)
    assert reduced().to_numpy().tobytes() == want.to_numpy().tobytes()


@pytest.mark.parametrize("n", [100, 2100])
def test_an_update_of_a_large_array_is_one_program_also_in_its_first_step(n):
    """All four arrays are computed for it in the same batch: 17 MB each where there are 2100 x 2100 elements."""
    with unflushed():
        w, m, v, gradient = owl.randn([n, n]), owl.zeros([n, n]), owl.zeros([n, n]), owl.sort(owl.randn([n, n]))
        m = m * 0.9 + gradient * 0.1
        v = v * 0.99 + ele.mult(gradient, gradient) * 0.01
        w = w - 0.001 * m / (ele.sqrt(v) + 1e-8)
        del gradient
        assert operations(owl.explain())[-1] == ["mult", "mult", "add", "mult", "mult", "mult", "add", "mult", "sqrt", "add", "div", "sub"]


def test_a_sum_of_many_large_arrays_does_not_need_all_of_them_at_once():
    with unflushed():
        total = owl.sort(owl.randn([2100, 2100]))
        for _ in range(11):
            total = total + owl.sort(owl.randn([2100, 2100]))
        assert max(len(task.operations) for task in owl.explain().tasks if "add" in task.operations) <= 6


def test_count_zero_counts_while_the_difference_is_computed():
    x, y = ready(owl.rand([1000, 300]), owl.rand([1000, 300]))
    want = int((ele.floor(x - y + 0.5).to_numpy() == 0).sum())
    hold = owl._owl.HoldWindow()
    try:
        before = owl.stats()
        assert ele.floor(x - y + 0.5).count_zero() == want
        after = owl.stats()
    finally:
        hold.release()
    assert after["kernels"] - before["kernels"] == 1


def test_values_that_are_held_are_written_as_well():
    x, _ = ready(owl.rand([64, 64]), None)
    held = []

    def step():
        held[:] = [x * 3.0]
        return held[0].sum(0), held[0]

    (task,) = owl.explain(step).tasks
    assert task.operations == ["mult", "sum"] and task.outputs == 2
    total, values = step()
    np.testing.assert_allclose(total.to_numpy()[:, 0], values.to_numpy().sum(1), rtol=1e-5)


def test_softmax_and_its_cross_entropy_gradient():
    x, label = ready(owl.randn([10, 500]), owl.randb([10, 500], 0.1))
    (task,) = owl.explain(lambda: (owl.conv.softmax(x * 0.5) - label) / 500).tasks
    assert task.operations == ["mult", "softmax", "sub", "div"] and task.outputs == 1


# --- operations that must not be fused


def test_what_reads_a_view_of_a_result_waits_for_all_of_it():
    w, x = ready(owl.rand([50, 50]), owl.rand([50, 50]))

    def mirrored():
        product = w * x
        return product + product[::-1, :]

    assert operations(owl.explain(mirrored)) == [["matmul"], ["add"]]


def test_a_strided_operand_is_gathered_by_a_program_of_its_own():
    w, x, big = ready(owl.rand([50, 50]), owl.rand([50, 50]), owl.rand([50, 100]))
    assert operations(owl.explain(lambda: w * x + big[:, ::2])) == [["matmul"], ["add"]]


def test_results_of_another_size_need_memory_of_their_own():
    w, x = ready(owl.rand([50, 50]), owl.rand([50, 50]))
    (task,) = owl.explain(lambda: w * x > 12.0).tasks  # bool, a quarter of the product's memory
    assert task.operations == ["matmul", "gt"] and task.bytes_written == 2500
    want = (w * x).to_numpy() > 12
    assert ((w * x > 12.0).to_numpy() == want).all()


def test_a_watched_operation_runs_alone():
    w, x = ready(owl.rand([8, 8]), owl.rand([8, 8]))
    with owl.trace_nan():
        assert operations(owl.explain(lambda: ele.relu(w * x).sum())) == [["matmul"], ["relu"], ["sum"]]
