"""Losses and accuracy of owl.nn against NumPy's formulas, and against PyTorch where it is installed."""

import numpy as np
import pytest

import owl
from nn_layers import numbers, sigmoid, softmax
from owl import nn

LOGITS = numbers((6, 4))  # [N, classes]
CLASSES = np.array([0, 3, 1, 2, 3, 3], "int32")


def log_probabilities(x):
    return np.log(softmax(x.astype("float64"), -1))


@pytest.mark.parametrize("reduce", ["mean", "sum", "none"])
@pytest.mark.parametrize("form", ["[N]", "[1, N]", "one-hot", "probabilities", "bool", "one-hot of integers"])
def test_softmax_cross_entropy(reduce, form):
    p = np.eye(4)[CLASSES] if form != "probabilities" else softmax(numbers((6, 4), 3).astype("float64"), 1)
    labels = {"[N]": CLASSES, "[1, N]": CLASSES[:, None], "bool": p > 0, "one-hot of integers": p.astype("int32")}.get(form, p.astype("float32"))
    each = -(p * log_probabilities(LOGITS)).sum(1)
    want = {"mean": each.mean(keepdims=True), "sum": each.sum(keepdims=True), "none": each}[reduce]
    logits = owl.from_numpy(LOGITS)
    for got in (nn.softmax_cross_entropy(logits, owl.from_numpy(labels), reduce),
                nn.nll(owl.conv.log_softmax(logits), owl.from_numpy(labels), reduce=reduce)):  # fmt: skip
        assert got.dtype == np.float32 and got.to_numpy().shape == want.shape
        np.testing.assert_allclose(got.to_numpy(), want, rtol=1e-5)


def test_labels_of_sequences():
    logits = numbers((5, 3, 4))
    labels = np.random.default_rng(0).integers(0, 4, (5, 3)).astype("int32")
    want = -np.take_along_axis(log_probabilities(logits), labels[..., None], 2)[..., 0]
    for shaped in (labels, labels[..., None], np.eye(4, dtype="f4")[labels]):
        got = nn.softmax_cross_entropy(owl.from_numpy(logits), owl.from_numpy(shaped), "none")
        np.testing.assert_allclose(got.to_numpy(), want, rtol=1e-5)
        assert nn.accuracy(owl.from_numpy(logits), owl.from_numpy(shaped)).item() == pytest.approx((logits.argmax(2) == labels).mean())


ELEMENTWISE = {
    "mse": lambda x, t: (x - t) ** 2,
    "l1": lambda x, t: np.abs(x - t),
    "huber": lambda x, t: np.where(np.abs(x - t) < 1, (x - t) ** 2 / 2, np.abs(x - t) - 0.5),
    "binary_cross_entropy": lambda x, t: -t * np.log(sigmoid(x)) - (1 - t) * np.log(1 - sigmoid(x)),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("reduce", ["mean", "sum", "none"])
def test_losses_of_equal_shapes(name, reduce):
    x, t = numbers((5, 3)) * 2, np.random.default_rng(1).random((5, 3)).astype("float32")
    each = ELEMENTWISE[name](x.astype("float64"), t.astype("float64"))
    want = {"mean": each.mean(keepdims=True), "sum": each.sum(keepdims=True), "none": each}[reduce].reshape(-1 if reduce != "none" else (5, 3))
    loss = getattr(nn, name)
    got = loss(owl.from_numpy(x), owl.from_numpy(t), reduce=reduce).to_numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    for shape in ([3, 1], [3], [5, 3], [3, 5, 1]):
        with pytest.raises(owl.ShapeError, match="nothing is broadcast"):
            loss(owl.from_numpy(x), owl.ones(shape))


TORCH_LOSSES = {
    "mse": "mse_loss", "l1": "l1_loss", "huber": "huber_loss", "binary_cross_entropy": "binary_cross_entropy_with_logits",
    "softmax_cross_entropy": "cross_entropy",
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH_LOSSES)
@pytest.mark.parametrize("reduce", ["mean", "sum", "none"])
def test_losses_of_pytorch(name, reduce):
    torch = pytest.importorskip("torch")
    x = numbers((6, 4)) * 3
    t = CLASSES if name == "softmax_cross_entropy" else np.random.default_rng(1).random((6, 4)).astype("float32")
    x_theirs = torch.from_numpy(x).requires_grad_()
    t_theirs = torch.from_numpy(t.astype("int64") if t.dtype == np.int32 else t)
    theirs = getattr(torch.nn.functional, TORCH_LOSSES[name])(x_theirs, t_theirs, reduction=reduce)
    theirs.sum().backward()
    x_ours = owl.from_numpy(x)
    with owl.Tape() as tape:
        ours = getattr(nn, name)(x_ours, owl.from_numpy(t), reduce=reduce)
        total = ours.sum()
    np.testing.assert_allclose(ours.to_numpy(), theirs.detach().numpy().reshape(ours.to_numpy().shape), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(total, x_ours).to_numpy(), x_theirs.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_huber_of_another_delta():
    x, t = owl.from_numpy(np.array([0.5, 3.0], "f4")), owl.zeros([2])
    assert nn.huber(x, t, delta=2.0, reduce="none").tolist() == pytest.approx([0.125, 4.0])
    with pytest.raises(ValueError, match="delta must be above 0"):
        nn.huber(x, t, delta=0.0)


def test_accuracy():
    logits = owl.from_numpy(LOGITS)
    want = (LOGITS.argmax(1) == CLASSES).mean()
    for labels in (CLASSES, CLASSES[:, None], np.eye(4, dtype="f4")[CLASSES]):
        assert nn.accuracy(logits, owl.from_numpy(labels)).item() == pytest.approx(want)
    one = owl.from_numpy(np.array([[0.5], [-2.0], [3.0]], "f4"))
    for labels in ([[1], [1], [1]], [1, 1, 1]):
        assert nn.accuracy(one, owl.from_numpy(np.array(labels, "int32"))).item() == pytest.approx(2 / 3)
    assert nn.accuracy(one, owl.from_numpy(np.array([[1.0], [0], [0]], "f4"))).item() == pytest.approx(2 / 3)


def test_float64_stays():
    x, labels = owl.from_numpy(LOGITS.astype("float64")), owl.from_numpy(CLASSES)
    assert nn.softmax_cross_entropy(x, labels).dtype == np.float64 and nn.nll(x, labels).dtype == np.float64
    assert nn.mse(x, x).dtype == np.float64 and nn.accuracy(x, labels).dtype == np.float32


def test_large_logits_stay_finite():
    x = owl.from_numpy(np.array([[1e4, -1e4, 0.0]], "f4"))
    assert nn.softmax_cross_entropy(x, owl.from_numpy(np.array([1], "int32"))).item() == pytest.approx(2e4)
    assert nn.binary_cross_entropy(x, owl.from_numpy(np.array([[0.0, 1.0, 0.5]], "f4"))).item() == pytest.approx(2e4 / 3, rel=1e-3)


@pytest.mark.parametrize("call, error, text", [
    (lambda x, y: nn.softmax_cross_entropy(x, owl.ones([6])), owl.DTypeError, "of type float32; classes are integers"),
    (lambda x, y: nn.softmax_cross_entropy(x, owl.ones([5], "int32")), owl.ShapeError, r"labels have shape \[5\]; for logits \[4, 6\] they have \[6\]"),
    (lambda x, y: nn.nll(x, owl.ones([6, 4])), owl.ShapeError, r"or \[4, 6\], probabilities"),
    (lambda x, y: nn.accuracy(x, owl.ones([6])), owl.DTypeError, "accuracy: labels are of type float32"),
    (lambda x, y: nn.accuracy(owl.ones([4]), y), owl.ShapeError, r"\[classes, N\], got \[4\]"),
    (lambda x, y: nn.softmax_cross_entropy(x, y, reduce="average"), ValueError, "\"mean\", \"sum\" or \"none\", not 'average'"),
    (lambda x, y: nn.mse(x, x, "Mean"), ValueError, "not 'Mean'"),
    (lambda x, y: nn.mse(x, 3.0), owl.DTypeError, "two NArrays, not float"),
    (lambda x, y: nn.softmax_cross_entropy(LOGITS, y), owl.DTypeError, "not ndarray; owl.from_numpy"),
])  # fmt: skip
def test_mistakes_of_losses(call, error, text):
    with pytest.raises(error, match=text):
        call(owl.from_numpy(LOGITS), owl.from_numpy(CLASSES))


@pytest.mark.parametrize("label", [4, -1, 100])
def test_a_label_out_of_range(label):
    labels = CLASSES.copy()
    labels[2] = label
    loss = nn.softmax_cross_entropy(owl.from_numpy(LOGITS), owl.from_numpy(labels))
    with pytest.raises(owl.IndexError, match=str(label)):
        loss.item()
