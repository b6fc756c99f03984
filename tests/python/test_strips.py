"""Chains of operations over images that run depth first, strip by strip: their plans, their memory, and that no bit and
no failure changes. Equal values would not reveal a lost strip."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import owl
from conftest import settle, unflushed, window

ele = owl.elewise
IMAGES = 256


def ready(*arrays):
    owl.wait_for_all()
    return arrays


def kinds(plan):
    return [task.kind for task in plan.tasks]


def bits(values):
    return [x.to_numpy().tobytes() for x in values]


def assert_as_alone(function):
    """The values of `function`, planned as a whole, are those of its operations one after another."""
    with unflushed():
        values = list(function())
        owl.wait_for_all()
    with owl.eager():
        alone = list(function())
        owl.wait_for_all()
    for i, (x, y) in enumerate(zip(values, alone, strict=True)):
        assert x.to_numpy().tobytes() == y.to_numpy().tobytes(), i


class Cnn:
    """The walkthrough's network: its gradients by hand."""

    def __init__(self, images):
        owl.seed(3)
        self.conv1, self.conv2 = owl.conv.Convolver(0, 0, 1, 1), owl.conv.Convolver(2, 2, 1, 1)
        self.pool1, self.pool2 = owl.conv.Pooler(2, 2, 2, 2), owl.conv.Pooler(3, 3, 3, 3)
        shapes = [5, 5, 1, 16], [16], [5, 5, 16, 32], [32], [10, 512], [10, 1]
        self.parameters = ready(*(owl.randn(shape, 0.0, 0.1) for shape in shapes))
        self.x, self.label = ready(owl.rand([28, 28, 1, images]), owl.rand([10, images]))

    def forward(self):
        w1, b1, w2, b2, w3, b3 = self.parameters
        a1 = ele.relu(self.conv1.ff(self.x, w1, b1))
        p1 = self.pool1.ff(a1)
        a2 = ele.relu(self.conv2.ff(p1, w2, b2))
        p2 = self.pool2.ff(a2)
        flat = p2.reshape([512, self.x.shape[3]])
        return a1, p1, a2, p2, flat, w3 * flat + b3

    def gradients(self):
        a1, p1, a2, p2, flat, scores = self.forward()
        _, _, w2, _, w3, _ = self.parameters
        s3 = owl.conv.softmax(scores) - self.label
        s2 = ele.relu_back(self.pool2.bp((w3.trans() * s3).reshape(p2.shape), p2, a2), a2)
        s1 = ele.relu_back(self.pool1.bp(self.conv2.bp(s2, p1, w2), p1, a1), a1)
        return [self.conv1.weight_grad(s1, self.x, self.parameters[0]), self.conv1.bias_grad(s1),
                self.conv2.weight_grad(s2, p1, w2), self.conv2.bias_grad(s2), s3 * flat.trans(), s3.sum(1)]  # fmt: skip

    def step(self):
        return [p - 0.1 * g for p, g in zip(self.parameters, self.gradients(), strict=True)]


def test_a_training_step_is_one_task_a_product_and_a_sum():
    plan = owl.explain(Cnn(IMAGES).step)
    assert kinds(plan) == ["strips", "kernel", "kernel"]
    strips = plan.tasks[0]
    assert strips.operations == [
        "conv", "relu", "pool", "conv", "relu", "pool", "matmul", "add", "softmax", "sub", "matmul", "pool_back",
        "relu_back", "conv_back_data", "pool_back", "relu_back", "conv_back_weight", "mult", "sub", "conv_back_bias",
        "mult", "sub", "conv_back_weight", "mult", "sub", "conv_back_bias", "mult", "sub"]  # fmt: skip
    # Written: what the other two tasks read and the views, of 512 and 10 values an image, and the new weights.
    new_weights = 25 * 16 + 16 + 25 * 16 * 32 + 32
    assert strips.bytes_written == 4 * (2 * 512 * IMAGES + 10 * IMAGES + new_weights)


def test_so_is_one_with_layers_and_a_tape():
    nn = owl.nn
    owl.seed(1)
    model = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(),
                          nn.MaxPool2d(3), nn.Flatten(), nn.Linear(512, 10))  # fmt: skip
    x, y = ready(owl.rand([28, 28, 1, IMAGES]), owl.from_numpy(np.arange(IMAGES) % 10))
    parameters = ready(*model.parameters().values())

    def gradients():
        with owl.Tape() as tape:
            loss = nn.softmax_cross_entropy(model(x), y)
        return tape.gradient(loss, list(parameters))

    plan = owl.explain(gradients)
    assert kinds(plan).count("strips") == 1
    [strips] = [task for task in plan.tasks if task.kind == "strips"]
    assert {"conv", "log_softmax_back", "conv_back_data", "conv_back_weight"} <= set(strips.operations)
    assert_as_alone(gradients)


@pytest.mark.parametrize("images", [128, 250, 256, 301])
def test_bits_of_a_training_step(images):
    assert_as_alone(Cnn(images).step)


def test_repeated_steps_use_the_plan_again():
    network = Cnn(IMAGES)
    with unflushed():
        bits(network.step())
        before = owl.stats()["plans_reused"]
        assert bits(network.step()) == bits(network.step())
        assert owl.stats()["plans_reused"] >= before + 2


def test_memory_of_a_training_step(limit):
    """What flows between the operations has memory for a strip only: half of it is enough."""
    network = Cnn(IMAGES)
    want = bits(network.step())
    activations = 4 * IMAGES * (24 * 24 * 16 + 12 * 12 * 16 + 12 * 12 * 32 + 512)
    settle()
    limit(owl.memory_stats()["allocated"] + activations // 2)
    with unflushed():
        assert bits(network.step()) == want


def test_a_loop_that_never_waits_is_planned_step_by_step():
    """Batches end between the steps, where only parameters cross, though a window holds more than one step."""
    network, steps = Cnn(IMAGES), 8
    with window(64, -1):
        before = owl.stats()["kernels"]
        for _ in range(steps):
            network.parameters = network.step()
        owl.wait_for_all()
        assert owl.stats()["kernels"] - before == 3 * steps


def test_values_with_a_handle_are_whole():
    network = Cnn(IMAGES)
    assert_as_alone(lambda: [*network.forward(), *network.gradients()])
    with unflushed():
        values = network.forward()
        plan = owl.explain(lambda: values)
        assert kinds(plan) == ["strips"] and plan.tasks[0].outputs >= 5
        want = [x.shape for x in values]
    assert [x.shape for x in values] == want


def test_few_images_or_little_between_them_run_one_after_another():
    assert "strips" not in kinds(owl.explain(Cnn(64).step))  # a strip would be a large part of them
    conv = owl.conv.Convolver(1, 1, 1, 1)
    x, w, b = ready(owl.rand([4, 4, 2, IMAGES]), owl.rand([3, 3, 2, 2]), owl.rand([2]))
    assert "strips" not in kinds(owl.explain(lambda: conv.ff(conv.ff(x, w, b), w, b)))  # all of it stays in the cache


def blocks():
    """Of networks: each maps [16, 16, 8, n] to the same shape."""
    same, strided = owl.conv.Convolver(1, 1, 1, 1), owl.conv.Convolver(1, 1, 2, 2)
    maximum = owl.conv.Pooler(3, 3, 1, 1, 1, 1)
    average = owl.conv.Pooler(3, 3, 1, 1, 1, 1, op=owl.conv.pool_op.avg)
    owl.seed(5)
    w, b, row = ready(owl.randn([3, 3, 8, 8], 0.0, 0.2), owl.randn([8]), owl.randn([16, 1, 8, 1]))
    return {
        "a convolution": lambda x: same.ff(x, w, b),
        "a skip connection": lambda x: same.ff(x, w, b) + x,
        "a maximum": maximum.ff,
        "an average": average.ff,
        "functions": lambda x: ele.mult(ele.tanh(x * 0.5 + row), ele.sigm(x)),
        "its gradient": lambda x: same.bp(ele.relu(x), x, w),
        "a pool's gradient": lambda x: maximum.bp(x, maximum.ff(x), x),
        "a strided one and back": lambda x: strided.bp(strided.ff(x, w, b), x, w),
        "a view of it": lambda x: same.ff(x, w, b).reshape([2048, -1]).reshape(x.shape),
        "a part of it": lambda x: same.ff(x, w, b) + x[:, :, :1],
        "a mask": lambda x: ele.mult(x, owl.randb(x.shape, 0.5)),
        "what all images give": lambda x: same.ff(x - x.mean(3).reshape([16, 16, 8, 1]), w, b),
    }  # fmt: skip


@pytest.mark.parametrize("block", blocks())
def test_bits_of_a_block(block):
    build, around = blocks()[block], blocks()["a convolution"]
    [x] = ready(owl.randn([16, 16, 8, IMAGES]))

    def run():
        owl.seed(7)
        y = around(around(build(around(x))))
        return y, y.sum([0, 1, 3])

    assert "strips" in kinds(owl.explain(run))
    assert_as_alone(run)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(sorted(blocks())), min_size=2, max_size=6), st.integers(130, 300),
       st.sets(st.integers(0, 5)))  # fmt: skip
def test_random_networks(names, images, held):
    known = blocks()
    [x] = ready(owl.randn([16, 16, 8, images]))

    def run():
        owl.seed(11)
        y, kept = x, []
        for i, name in enumerate(names):
            y = known[name](y)
            if i in held:
                kept.append(y)
        return [y, *kept]

    assert_as_alone(run)


def refused(x):
    raise ValueError("refused")


def test_a_failed_operand_fails_what_needs_it_and_nothing_else():
    """The bias of the second convolution: the first one's results are whole, the loss and all gradients are not."""
    network = Cnn(IMAGES)
    a1, p1 = bits(network.forward()[:2])
    parameters = list(network.parameters)
    with unflushed():
        parameters[3] = owl.op(refused)(parameters[3])
        network.parameters = parameters
        values = network.forward()
        gradients = network.gradients()
        for value in (*values[2:], *gradients):
            with pytest.raises(owl.Error, match="refused"):
                value.wait_for_eval()
        assert bits(values[:2]) == [a1, p1]


def test_a_failed_operand_of_an_update_fails_the_update_alone():
    network = Cnn(IMAGES)
    want = bits(network.step())
    with unflushed():
        rates = [owl.ones(p.shape) * 0.1 for p in network.parameters]
        rates[1] = owl.op(refused)(rates[1])
        new = [p - ele.mult(r, g) for p, r, g in zip(network.parameters, rates, network.gradients(), strict=True)]
        with pytest.raises(owl.Error, match="refused"):
            new[1].wait_for_eval()
        del new[1], want[1]
        assert bits(new) == want


def test_sums_over_devices_begin_before_the_last_strip():
    """A gradient that other devices wait for is a task of its own."""
    network, other = Cnn(IMAGES), owl.create_cpu_device()
    zeros = ready(*(owl.zeros(p.shape).copy_to(other) for p in network.parameters))

    def summed():
        return [s for g, z in zip(network.gradients(), zeros, strict=True) for s in owl.all_reduce([g, z])]

    strips = [task.operations for task in owl.explain(summed).tasks if task.kind == "strips"]
    assert len(strips) == 1 and "softmax" in strips[0] and "conv_back_weight" not in strips[0]
    assert_as_alone(summed)


def layers(convolver, x, w, b, count):
    for _ in range(count):
        x = ele.relu(convolver.ff(x, w, b))
    return x


@pytest.fixture
def plain():
    """A convolution from 8 channels to 8, and images for it."""
    owl.seed(2)
    convolver = owl.conv.Convolver(1, 1, 1, 1)
    return convolver, *ready(owl.randn([16, 16, 8, IMAGES]), owl.randn([3, 3, 8, 8], 0.0, 0.2), owl.randn([8]))


def test_both_branches_of_a_network_run_in_strips(plain):
    convolver, x, w, b = plain
    [other] = ready(owl.randn(x.shape))

    def difference():
        return [layers(convolver, x, w, b, 4) - layers(convolver, other, w, b, 4)]

    assert kinds(owl.explain(difference)) == ["strips", "strips"]
    assert_as_alone(difference)


def test_a_softmax_over_the_images_needs_all_of_them(plain):
    convolver, x, w, b = plain
    whole = owl.conv.Convolver()
    [v, c] = ready(owl.randn([16, 16, 8, 1], 0.0, 0.1), owl.zeros([1]))

    def run():
        scores = whole.ff(layers(convolver, x, w, b, 3), v, c)
        return [owl.conv.softmax(scores, axis=3), owl.conv.log_softmax(scores, axis=3)]

    assert "strips" in kinds(owl.explain(run))
    assert_as_alone(run)


def test_values_that_others_read_do_not_pile_up(plain):
    """Each layer's sum would keep its result alive until the last strip of the last layer."""
    convolver, x, w, b = plain

    def run():
        sums, y = [], x
        for _ in range(12):
            y = ele.relu(convolver.ff(y, w, b))
            sums.append(y.sum())
        return sums

    most = max(task.bytes_written for task in owl.explain(run).tasks if task.kind == "strips")
    assert most <= 4 * 4 * x.size
    assert_as_alone(run)


def test_partial_sums_do_not_pile_up():
    """Of ten weight gradients each has megabytes of them."""
    convolver = owl.conv.Convolver(1, 1, 1, 1)
    x, w, b = ready(owl.randn([4, 4, 64, 512]), owl.randn([3, 3, 64, 64], 0.0, 0.05), owl.zeros([64]))

    def run():
        y = layers(convolver, x, w, b, 6)
        return [convolver.weight_grad(ele.relu(y + i), x, w) for i in range(6)]

    operations = [task.operations for task in owl.explain(run).tasks if task.kind == "strips"]
    assert all(names.count("conv_back_weight") <= 3 for names in operations)
    assert_as_alone(run)


def test_a_user_operation_may_wait_for_a_value_before_it(plain):
    convolver, x, w, b = plain
    with unflushed():
        first = layers(convolver, x, w, b, 2)
        again = owl.op(lambda v: v + first.to_numpy()[0, 0, 0, 0])(b)
        assert np.isfinite(layers(convolver, first, w, again, 2).to_numpy()).all()


def test_a_value_that_is_dropped_while_it_is_planned(plain):
    """Its last handle may go between two looks at it: the task then has a result that nothing reads."""
    convolver, x, w, b = plain
    with window(1000, 50):
        for pause in range(60):
            many = [ele.exp(b + float(i)) for i in range(pause)]
            y = layers(convolver, x, w, b, 2)
            for _ in range(20 * pause):
                pass
            del y
            owl.wait_for_all()
    assert len(many) == 59
