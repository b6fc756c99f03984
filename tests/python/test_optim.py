"""owl.optim against PyTorch's optimizers (where it is installed) and against formulas in NumPy."""

import copy
import math
import pickle

import numpy as np
import pytest

import owl
from owl import optim

# name: (owl's, PyTorch's class and its settings, or None)
OPTIMIZERS = {
    "sgd": (lambda: optim.SGD(0.1), ("SGD", {"lr": 0.1})),
    "sgd, decay": (lambda: optim.SGD(0.1, weight_decay=0.05), ("SGD", {"lr": 0.1, "weight_decay": 0.05})),
    "momentum": (lambda: optim.SGD(0.1, momentum=0.9), ("SGD", {"lr": 0.1, "momentum": 0.9})),
    "nesterov": (lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
                 ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01})),
    "rmsprop": (optim.RMSprop, ("RMSprop", {})),
    "rmsprop, momentum": (lambda: optim.RMSprop(0.02, alpha=0.9, momentum=0.5, weight_decay=0.1),
                          ("RMSprop", {"lr": 0.02, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1})),
    "rmsprop, centered": (lambda: optim.RMSprop(0.02, alpha=0.9, centered=True), ("RMSprop", {"lr": 0.02, "alpha": 0.9, "centered": True})),
    "rmsprop, centered, momentum": (lambda: optim.RMSprop(momentum=0.5, centered=True), ("RMSprop", {"momentum": 0.5, "centered": True})),
    "adam, amsgrad": (lambda: optim.Adam(0.05, b2=0.5, amsgrad=True), ("Adam", {"lr": 0.05, "betas": (0.9, 0.5), "amsgrad": True})),
    "adamw, amsgrad": (lambda: optim.AdamW(b2=0.5, amsgrad=True), ("AdamW", {"betas": (0.9, 0.5), "amsgrad": True})),
    "adagrad": (lambda: optim.AdaGrad(weight_decay=0.1), ("Adagrad", {"weight_decay": 0.1})),
    "adam": (optim.Adam, ("Adam", {})),
    "adam, settings": (lambda: optim.Adam(0.05, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.1),
                       ("Adam", {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1})),
    "adamw": (optim.AdamW, ("AdamW", {})),
    "adamw, settings": (lambda: optim.AdamW(0.05, weight_decay=0.3), ("AdamW", {"lr": 0.05, "weight_decay": 0.3})),
    "lion": (lambda: optim.Lion(0.01, weight_decay=0.1), None),
}  # fmt: skip
SHAPES = {"w": (4, 3), "b": (3,), "deep.0.w": (2, 3, 2)}  # NumPy's
STEPS = 6


def values(seed):
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype("float32") for name, shape in SHAPES.items()}


def arrays(of):
    return {name: owl.from_numpy(a) for name, a in of.items()}


def run(optimizer, steps=STEPS):
    x = arrays(values(0))
    for t in range(steps):
        x = optimizer.update(x, arrays(values(t + 1)))
    return {name: a.to_numpy() for name, a in x.items()}


def assert_close(got, want, tolerance=1e-5):
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", [name for name, (_, theirs) in OPTIMIZERS.items() if theirs])
def test_pytorch(name):
    torch = pytest.importorskip("torch")
    ours, (cls, settings) = OPTIMIZERS[name]
    x = {name: torch.nn.Parameter(torch.from_numpy(a)) for name, a in values(0).items()}
    theirs = getattr(torch.optim, cls)([*x.values()], **settings)
    for t in range(STEPS):
        for name, g in values(t + 1).items():
            x[name].grad = torch.from_numpy(g)
        theirs.step()
    assert_close(run(ours()), {name: a.detach().numpy() for name, a in x.items()})


def sgd(x, g, m, v, t):
    m = 0.9 * m + g
    return x - 0.1 * m, m, v


def nesterov(x, g, m, v, t):
    g = g + 0.01 * x
    m = 0.9 * m + g
    return x - 0.1 * (g + 0.9 * m), m, v


def rmsprop(x, g, m, v, t):
    v = 0.99 * v + 0.01 * g * g
    return x - 0.01 * g / (np.sqrt(v) + 1e-8), m, v


def adagrad(x, g, m, v, t):
    g = g + 0.1 * x
    v = v + g * g
    return x - 0.01 * g / (np.sqrt(v) + 1e-10), m, v


def adam_with_settings(x, g, m, v, t):
    g = g + 0.1 * x
    m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
    return x - 0.05 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3), m, v


def adam(x, g, m, v, t, lr=1e-3):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v


def adamw(x, g, m, v, t):
    return adam(x * (1 - 0.05 * 0.3), g, m, v, t, lr=0.05)


def lion(x, g, m, v, t):
    x = x * (1 - 0.01 * 0.1) - 0.01 * np.sign(0.9 * m + 0.1 * g)
    return x, 0.99 * m + 0.01 * g, v


@pytest.mark.parametrize("name, formula", [
    ("momentum", sgd), ("nesterov", nesterov), ("rmsprop", rmsprop), ("adagrad", adagrad), ("adam", adam), ("adam, settings", adam_with_settings),
    ("adamw, settings", adamw), ("lion", lion),
])  # fmt: skip
def test_formulas(name, formula):
    want = {}
    for key, x in values(0).items():
        x, m, v = x.astype("float64"), 0.0, 0.0
        for t in range(1, STEPS + 1):
            x, m, v = formula(x, values(t)[key].astype("float64"), m, v, t)
        want[key] = x
    assert_close(run(OPTIMIZERS[name][0]()), want)


# ---- what is updated


def test_structures():
    w, b = owl.ones([3, 2]), owl.ones([3])
    g, h = owl.full([3, 2], 2.0), owl.full([3], 4.0)
    sgd = optim.SGD(0.5)
    assert sgd.update(w, g).tolist() == owl.zeros([3, 2]).tolist()
    new_w, (new_b,) = sgd.update([w, (b,)], [g, (h,)])
    assert new_w.tolist() == owl.zeros([3, 2]).tolist() and new_b.tolist() == [-1.0] * 3
    nested = sgd.update({"layers": [{"w": w}], "b": b}, {"layers": [{"w": g}], "b": h})
    assert nested["layers"][0]["w"].tolist() == owl.zeros([3, 2]).tolist() and nested["b"].tolist() == [-1.0] * 3
    assert w.tolist() == owl.ones([3, 2]).tolist()  # the old ones are values
    partly = sgd.update({"w": w, "b": b}, {"b": h})
    assert partly["w"] is w and partly["b"].tolist() == [-1.0] * 3


def test_a_module_is_bound_to_its_new_parameters():
    net = owl.nn.Linear(3, 2)
    weight = net.weight
    before = weight.to_numpy()
    g = {"weight": owl.ones([3, 2]), "bias": owl.ones([2])}
    optimizer = optim.SGD(0.25)
    assert optimizer.update(net, g) is None
    np.testing.assert_allclose(net.weight.to_numpy(), before - 0.25)
    assert net.bias.tolist() == [-0.25, -0.25]
    assert (weight.to_numpy() == before).all()
    net.freeze("weight")
    assert list(optimizer.update({"bias": net.bias}, {"bias": g["bias"]})) == ["bias"]


def test_float64_stays():
    for ours, _ in OPTIMIZERS.values():
        x = ours().update({"x": owl.ones([3], "float64")}, {"x": owl.ones([3], "float64")})
        assert x["x"].dtype == np.float64


def test_mistakes_change_nothing():
    net = owl.nn.Linear(3, 2)
    good = {"weight": owl.ones([3, 2]), "bias": owl.ones([2])}
    adam = optim.Adam()
    weight = net.weight
    for grads, error, text in [
        (good | {"extra": owl.ones([1])}, owl.DataError, "no parameter 'extra'.*weight, bias"),
        (good | {"bias": owl.ones([3])}, owl.ShapeError, r"'bias' has shape \[3\], the parameter \[2\]"),
        (good | {"bias": owl.ones([2], "float64")}, owl.DTypeError, "float64, the parameter of float32"),
        (good | {"bias": np.ones(2, "f4")}, owl.DTypeError, "ndarray"),
        ([owl.ones([3, 2])], TypeError, "dict of gradients by name, not list"),
    ]:
        with pytest.raises(error, match=text):
            adam.update(net, grads)
        assert net.weight is weight and adam.steps == 0 and adam.state() == optim.Adam().state()
    with pytest.raises(owl.DTypeError, match="must be an NArray"):
        adam.update({"w": 3.0}, {"w": owl.ones([1])})


@pytest.mark.parametrize("make, error, text", [
    (lambda: optim.SGD(-0.1), ValueError, "lr must be a finite number"), (lambda: optim.SGD(math.nan), ValueError, "lr must be"),
    (lambda: optim.SGD("fast"), TypeError, "not 'fast'"), (lambda: optim.SGD(0.1, momentum=-1), ValueError, "momentum must be 0"),
    (lambda: optim.SGD(0.1, nesterov=True), ValueError, "nesterov needs"), (lambda: optim.Adam(b1=1.0), ValueError, "b1 must be below 1"),
    (lambda: optim.Adam(eps=-1.0), ValueError, "eps must be 0"), (lambda: optim.Lion(b2=2.0), ValueError, "b2 must be below 1"),
    (lambda: optim.RMSprop(weight_decay=-1), ValueError, "weight_decay must"), (lambda: optim.AdaGrad(eps=-1), ValueError, "eps must"),
    (lambda: optim.SGD(lambda t: None).lr, TypeError, "not None"), (lambda: optim.SGD(lambda t: math.inf).lr, ValueError, "got inf"),
    (lambda: optim.step(0.1, 0), ValueError, "every must be 1"), (lambda: optim.cosine(0.1, 0), ValueError, "steps must be 1"),
    (lambda: optim.Adam({"w": owl.ones([2])}, lr=0.1), TypeError, "Adam takes no parameters: update\\(model, grads\\)"),
    (lambda: optim.SGD(owl.nn.Linear(2, 3)), TypeError, "SGD takes no parameters"),
    (lambda: optim.Adam(betas=(0.9, 0.99)), TypeError, "Adam has no argument 'betas': write b1 and b2; it takes lr, b1"),
    (lambda: optim.Adam(learning_rate=0.1), TypeError, "no argument 'learning_rate': write lr;"),
    (lambda: optim.SGD(0.1, momentun=0.9), TypeError, "no argument 'momentun'; it takes lr, momentum, nesterov"),
    (lambda: optim.SGD(0.1).zero_grad(), AttributeError, "SGD has no zero_grad: gradients are what"),
    (lambda: optim.SGD(0.1).state_dict(), AttributeError, r"write optimizer.state\(\)"),
    (lambda: optim.SGD(0.1).rate, AttributeError, "^SGD has no rate$"),
    (lambda: optim.one_cycle(0.1, 0), ValueError, "steps must be 1"), (lambda: optim.warmup(0, 0.1), ValueError, "steps must be 1"),
])  # fmt: skip
def test_settings_out_of_range(make, error, text):
    with pytest.raises(error, match=text):
        make()


# ---- learning rates


def test_the_rate_can_be_read_and_set():
    sgd = optim.SGD(0.5)
    x = {"x": owl.zeros([1])}
    assert sgd.lr == 0.5
    x = sgd.update(x, {"x": owl.ones([1])})
    sgd.lr = 0.25
    assert sgd.lr == 0.25
    x = sgd.update(x, {"x": owl.ones([1])})
    sgd.lr = lambda t: 1.0 / t  # two updates were made
    assert sgd.lr == 0.5
    x = sgd.update(x, {"x": owl.ones([1])})
    assert x["x"].item() == -1.25 and sgd.lr == 1 / 3


def test_schedules():
    assert [optim.step(1.0, 2, 0.5)(t) for t in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    assert optim.step(1.0, 3)(3) == pytest.approx(0.1)
    assert [optim.exponential(1.0, 0.5)(t) for t in range(3)] == [1, 0.5, 0.25]
    cosine = optim.cosine(1.0, 4, low=0.2)
    assert [cosine(t) for t in (0, 2, 4, 9)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    warm = optim.warmup(4, cosine)
    assert [warm(t) for t in (0, 1, 4, 6, 8)] == pytest.approx([0.0, 0.25, 1.0, 0.6, 0.2])
    assert [optim.warmup(2, 0.5)(t) for t in range(4)] == [0.0, 0.25, 0.5, 0.5]
    cycle = [optim.one_cycle(1.0, 10)(t) for t in range(12)]
    assert cycle[0] == pytest.approx(0.04) and cycle[2] == pytest.approx(1.0) and cycle[9] == pytest.approx(4e-6)
    assert cycle[10] == cycle[11] == cycle[9]
    assert [optim.one_cycle(1.0, 2)(t) for t in range(3)] == pytest.approx([1.0, 4e-6, 4e-6])


@pytest.mark.parametrize("ours, theirs", [
    (optim.step(0.5, 3, 0.3), lambda torch, o: torch.optim.lr_scheduler.StepLR(o, 3, 0.3)),
    (optim.exponential(0.5, 0.9), lambda torch, o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
    (optim.cosine(0.5, 20, 0.1), lambda torch, o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, 0.1)),
    (optim.one_cycle(0.5, 20), lambda torch, o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=20)),
], ids=["step", "exponential", "cosine", "one_cycle"])  # fmt: skip
def test_schedules_of_pytorch(ours, theirs):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = theirs(torch, optimizer)
    for t in range(20):
        assert ours(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), t
        optimizer.step()
        if t < 19:
            scheduler.step()


def shape_of(plan):
    return [(task.kind, task.shape, task.operations, task.outputs, task.after, task.reuses) for task in plan.tasks]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_one_pass_whose_plan_does_not_know_rate_and_step(name):
    optimizer = OPTIMIZERS[name][0]()
    x, g = {"w": owl.ones([300, 200])}, owl.ones([300, 200])
    optimizer.update(x, {"w": g})
    owl.wait_for_all()

    def step():
        new = optimizer.update(x, {"w": g})
        return [new["w"], *(each for each in optimizer.state().values() if isinstance(each, owl.NArray))]

    plans = []
    for rate in (0.125, 0.25):
        optimizer.lr = rate
        plans.append(shape_of(owl.explain(step)))
        owl.wait_for_all()
    assert plans[0] == plans[1]
    (task,) = plans[0]
    assert task[0] == "fused" and task[3] == 1 + len(optimizer.SLOTS)


# ---- clipping


def test_clip_norm():
    grads = {"a": owl.full([2], 3.0), "b": [owl.full([1], 4.0), owl.full([1], math.sqrt(7.0))]}
    clipped, norm = optim.clip_norm(grads, 1.0)
    total = math.sqrt(9 + 9 + 16 + 7)
    assert norm.shape == [1] and norm.item() == pytest.approx(total)
    assert clipped["b"][0].item() == pytest.approx(4 / total, rel=1e-5)
    same, _ = optim.clip_norm(grads, 100.0)
    assert same["a"].tolist() == [3.0, 3.0]
    tiny, _ = optim.clip_norm(owl.full([1], 1e-6), 1e-6)
    assert tiny.item() == pytest.approx(0.5e-6, rel=1e-3)  # the 1e-6 beside the norm
    both, _ = optim.clip_norm([owl.ones([2], "float64"), owl.ones([2])], 0.1)
    assert [x.dtype.name for x in both] == ["float64", "float32"]
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="most must be above 0"):
            optim.clip_norm(grads, bad)
    with pytest.raises(ValueError, match="no gradients"):
        optim.clip_norm({}, 1.0)


def test_clip_norm_of_pytorch():
    torch = pytest.importorskip("torch")
    for most in (0.5, 100.0):
        x = {name: torch.nn.Parameter(torch.from_numpy(a)) for name, a in values(0).items()}
        for name, g in values(1).items():
            x[name].grad = torch.from_numpy(g.copy())
        norm = torch.nn.utils.clip_grad_norm_([*x.values()], most)
        ours, our_norm = optim.clip_norm(arrays(values(1)), most)
        assert our_norm.item() == pytest.approx(norm.item(), rel=1e-5)
        assert_close({n: a.to_numpy() for n, a in ours.items()}, {n: a.grad.numpy() for n, a in x.items()})


# ---- state


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_from_its_state(name):
    make = OPTIMIZERS[name][0]
    whole = run(make())
    first = make()
    x = arrays(values(0))
    for t in range(2):
        x = first.update(x, arrays(values(t + 1)))
    second = make()
    second.load_state(first.state())
    for t in range(2, STEPS):
        x = second.update(x, arrays(values(t + 1)))
    for key, a in x.items():
        assert (a.to_numpy() == whole[key]).all()
    assert second.steps == STEPS


def test_what_state_holds():
    adam = optim.Adam(0.01)
    adam.update({"0.w": owl.ones([2])}, {"0.w": owl.ones([2])})
    state = adam.state()
    assert {k: v for k, v in state.items() if not isinstance(v, owl.NArray)} == {
        "optimizer": "Adam", "steps": 1, "lr": 0.01, "0.w.step": 1}  # fmt: skip
    np.testing.assert_allclose(state["0.w.exp_avg"].to_numpy(), [0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(state["0.w.exp_avg_sq"].to_numpy(), [0.001, 0.001], rtol=1e-6)
    scheduled = optim.Adam(optim.cosine(0.5, 10))
    scheduled.load_state(state)
    assert scheduled.lr == optim.cosine(0.5, 10)(1) and "lr" not in scheduled.state()
    again = optim.Adam()
    again.load_state(state)
    assert again.lr == 0.01


def test_centered_variances_do_not_fall_below_zero():
    rmsprop, x = optim.RMSprop(centered=True), {"x": owl.zeros([50])}
    g = {"x": owl.linspace(0.1, 3.0, 50)}
    for _ in range(2000):
        x = rmsprop.update(x, g)
    assert np.isfinite(x["x"].to_numpy()).all()


def test_copies_and_pickles():
    adam = optim.Adam(0.01, amsgrad=True)
    adam.update({"w": owl.ones([2])}, {"w": owl.ones([2])})
    for other in (copy.deepcopy(adam), pickle.loads(pickle.dumps(adam))):
        assert other.state().keys() == adam.state().keys() and other.lr == 0.01 and other.steps == 1
        got, want = (each.update({"w": owl.ones([2])}, {"w": owl.ones([2])})["w"].tolist() for each in (other, copy.deepcopy(adam)))
        assert got == want


def test_a_parameter_that_joins_later_counts_for_itself():
    adam = optim.Adam(0.1)
    x = {"a": owl.zeros([1]), "b": owl.zeros([1])}
    for _ in range(5):
        x = adam.update(x, {"a": owl.ones([1])})
    x = adam.update(x, {"a": owl.ones([1]), "b": owl.ones([1])})
    assert x["b"].item() == pytest.approx(-0.1, rel=1e-4)  # a first step is of the length lr


def test_states_that_do_not_fit():
    adam = optim.Adam()
    adam.update({"w": owl.ones([2])}, {"w": owl.ones([2])})
    state = adam.state()
    with pytest.raises(owl.DataError, match="state of Adam, not of AdamW"):
        optim.AdamW().load_state(state)
    with pytest.raises(owl.DataError, match="state of no optimizer"):
        optim.Adam().load_state({})
    bad = {k: v for k, v in state.items() if k != "w.exp_avg"} | {"w.more": owl.ones([1]), "v.exp_avg": 3, "steps": -1, "v.step": 1.5}
    fresh = optim.Adam()
    with pytest.raises(owl.DataError) as caught:
        fresh.load_state(bad)
    for part in ("missing: w.exp_avg", "missing: v.exp_avg_sq", "left over: w.more", "v.exp_avg is int", "steps is -1", "v is 1.5"):
        assert part in str(caught.value)
    assert fresh.state() == optim.Adam().state()
    with pytest.raises(owl.DataError, match=r"w: its arrays have shapes \[2\], \[3\]"):
        optim.Adam().load_state(state | {"w.exp_avg_sq": owl.ones([3])})
    other = optim.Adam()
    other.load_state(state)
    with pytest.raises(owl.DataError, match=r"state of 'w' has shape \[2\], the parameter \[3\].*another model"):
        other.update({"w": owl.ones([3])}, {"w": owl.ones([3])})


def test_repr():
    assert repr(optim.SGD(0.1, momentum=0.9)) == "SGD(lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)"
    assert "Adam(lr=0.001, b1=0.9" in repr(optim.Adam())


def test_memory_of_a_loop_is_that_of_parameters_averages_and_gradients():
    adam = optim.Adam()
    net = owl.nn.Linear(500, 400)
    g = {"weight": owl.ones([500, 400]), "bias": owl.ones([400])}
    for _ in range(50):
        adam.update(net, g)
    owl.wait_for_all()
    before = owl.memory_stats()["allocated"]
    for _ in range(50):
        adam.update(net, g)
    owl.wait_for_all()
    assert owl.memory_stats()["allocated"] <= before
