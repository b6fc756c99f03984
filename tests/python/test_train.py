"""owl.train: the loop, metrics, validation, shards and devices."""

import math

import numpy as np
import pytest

import owl
from owl import data, nn, optim, train
from training_parts import LABELS, Centred, Dropout, X, fit, loader, network, predicted, trainer, weights


def test_a_network_learns_and_the_history_tells():
    own = trainer(optimizer=optim.Adam(0.02))
    history = own.fit((X, LABELS), 8, validation=(X[:50], LABELS[:50]), progress=False)
    assert history is own.history and len(history) == 8 and own.steps == 8 * math.ceil(200 / 32)
    assert history.columns == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "images_per_s"]
    assert history["epoch"] == list(range(1, 9)) and history["loss"][-1] < history["loss"][0] / 2
    assert history["val_accuracy"][-1] > 0.85 and min(history["images_per_s"]) > 0
    assert own.model.training  # as it was


def test_tuples_data_sets_and_loaders_give_the_same_bits():
    results = []
    for given, options in (((X, LABELS), {}), (data.ArrayDataset(X, LABELS), {}), (loader(), {}),
                           ((X.astype("f8"), LABELS.astype("i8")), {}), ((X, LABELS), {"batch_size": 32, "seed": 0})):  # fmt: skip
        own = trainer()
        fit(own, 2, given, **options)
        results.append(weights(own))
    assert all(result == results[0] for result in results)


def test_it_is_the_loop_that_one_would_write():
    model, optimizer = network(), optim.SGD(0.1, momentum=0.9)
    for _ in range(2):
        for x, labels in (batches := loader()) if _ == 0 else batches:
            with owl.Tape() as tape:
                loss = nn.softmax_cross_entropy(model(x), labels)
            optimizer.update(model, tape.gradient(loss, model))
    own = trainer(optimizer=optim.SGD(0.1, momentum=0.9))
    fit(own, 2)
    assert weights(own) == {name: array.to_numpy().tobytes() for name, array in model.state().items()}


def test_names():
    own = train.Trainer(network(), "mse", "sgd")
    assert own.optimizer.lr == 0.01
    for loss, optimizer, metric, words in (("cross", "sgd", "accuracy", "'softmax_cross_entropy', .*'mse'"),
                                           ("mse", "adma", "accuracy", "'adma'; there are 'sgd', .*'adam'"),
                                           ("mse", "adam", "f1", "'accuracy'")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            train.Trainer(network(), loss, optimizer, metrics=(metric,))


@pytest.mark.parametrize("make, error, words", [
    (lambda: train.Trainer(3, "mse", "adam"), TypeError, "Module"),
    (lambda: train.Trainer(network(), 3, "adam"), TypeError, "loss"),
    (lambda: train.Trainer(network(), "mse", 3), TypeError, "optimizer"),
    (lambda: train.Trainer(network(), "mse", "adam", metrics=[3]), TypeError, "metric"),
    (lambda: trainer(devices=[]), ValueError, "empty"), (lambda: trainer(devices=[0, 0]), ValueError, "twice"),
    (lambda: trainer(devices=[99]), owl.DeviceError, "99"),
    (lambda: trainer(shards=3), ValueError, "power of two"), (lambda: trainer(shards=0), ValueError, "power of two"),
    (lambda: trainer().fit((X, LABELS), 0), ValueError, "epochs"), (lambda: trainer().fit((X, LABELS), 1, accumulate=0), ValueError, "accumulate"),
    (lambda: trainer().fit((X, LABELS[:9]), 1), ValueError, "other lengths"), (lambda: trainer().fit((X[:0], LABELS[:0]), 1), ValueError, "no samples"),
    (lambda: trainer().fit((X, LABELS), 1, batch_size=0), ValueError, "batch_size"), (lambda: trainer().fit(X, 1), TypeError, "tuple"),
    (lambda: trainer().fit((X,), 1), ValueError, r"\(x, labels\)"), (lambda: trainer().fit(3, 1), TypeError, "Loader"),
    (lambda: trainer().fit(loader(), 1, batch_size=5), ValueError, "has 32"),
    (lambda: trainer().fit(loader(), 1, validation=0.2), ValueError, "fraction"),
    (lambda: trainer().fit((X, LABELS), 1, validation=1.5), ValueError, "between 0 and 1"),
    (lambda: trainer().fit((X[:1], LABELS[:1]), 1, validation=0.5), ValueError, "without any"),
    (lambda: trainer().fit((X, LABELS.astype("f4")), 1, progress=False), owl.DTypeError, "integers"),
    (lambda: trainer().fit((owl.from_numpy(X), LABELS), 1), TypeError, "to_numpy"),
    (lambda: train.Trainer(nn.Linear, "mse", "adam"), TypeError, "the class Linear: call it"),
    (lambda: train.Trainer(network(), "mse", optim.Adam), TypeError, "call it"),
    (lambda: train.Trainer(network(), "mse", optim="adam"), TypeError, "no argument 'optim': write optimizer; it takes model, loss"),
    (lambda: trainer().fit(X, LABELS), TypeError, r"one tuple: fit\(\(x, labels\), epochs\)"),
    (lambda: trainer().fit(X, LABELS, epochs=2), TypeError, r"one tuple: fit\(\(x, labels\), epochs\)"),
    (lambda: trainer().evaluate(X, LABELS), TypeError, r"one tuple: evaluate\(\(x, labels\)\)"),
    (lambda: trainer().fit((X, LABELS), 1, validation_data=(X, LABELS)), TypeError, "no argument 'validation_data': write validation; it takes data, epochs"),
    (lambda: trainer().fit((X, LABELS), "3"), ValueError, "epochs must be a positive integer, not '3'"),
    (lambda: trainer().fit((X, LABELS), 1, steps=3), TypeError, "no argument 'steps'; it takes data, epochs"),
    (lambda: trainer().fit({"x": X, "labels": LABELS}, 1), TypeError, "tuple of NumPy arrays .* not dict"),
    (lambda: trainer().fit((X, LABELS), 1, callbacks=train.StopOnNaN()), TypeError, "a list of objects, not StopOnNaN"),
    (lambda: trainer().fit((X, LABELS), 1, callbacks=[train.StopOnNaN]), TypeError, "the class StopOnNaN: call it"),
    (lambda: trainer().fit((X, LABELS), 1, callbacks=[fit]), TypeError, "not the function fit"),
    (lambda: trainer().fit((X, LABELS), 1, callbacks=[KerasCallback()]), TypeError, "KerasCallback has on_epoch_end, which fit does not call; .*on_epoch"),
    (lambda: fit(trainer(model=network().freeze()), 1), owl.Error, r"no parameters to train; model.unfreeze\(\)"),
    (lambda: trainer().run(), AttributeError, "Trainer has no run: write trainer.fit"),
    (lambda: train.Trainer(nn.Linear(6, 1), "mse", "adam").fit((X, X[:, 0]), 1, progress=False), owl.ShapeError, r"write t.reshape\(\[1, 32\]\), or of NumPy's y\[:, None\]"),
])  # fmt: skip
def test_calls_that_make_no_sense(make, error, words):
    with pytest.raises(error, match=words):
        make()


class KerasCallback:
    def on_epoch_end(self, epoch, logs):
        pass


def test_one_sample():
    own = trainer()
    history = fit(own, 2, (X[:1], LABELS[:1]), validation=(X[:1], LABELS[:1]))
    assert len(history) == 2 and history[-1]["val_accuracy"] in (0.0, 1.0)


def test_epochs_are_the_total():
    own, whole = trainer(), trainer()
    own.model.load_state(whole.model.state())
    fit(whole, 5)
    fit(own, 2)
    fit(own, 2)
    assert len(own.history) == 2
    fit(own, 5)
    assert weights(own) == weights(whole) and own.history["loss"] == whole.history["loss"]


# ---- Metrics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 7, 64, 199, 500])
def test_evaluate_does_not_depend_on_the_batches(batch_size):
    own = trainer()
    fit(own, 1)
    logits = predicted(own).astype("f8")
    measured = own.evaluate((X, LABELS), batch_size)
    assert measured["accuracy"] == (logits.argmax(1) == LABELS).sum() / 200
    exact = np.log(np.exp(logits).sum(1)) - logits[np.arange(200), LABELS]
    assert measured["loss"] == pytest.approx(exact.mean(), rel=1e-5)


def test_accumulation_is_one_large_batch():
    results = []
    for accumulate, batch_size in ((1, 64), (4, 16), (64, 1)):  # 200 samples: the last window is short
        own = trainer(optimizer=optim.SGD(0.1))
        fit(own, 2, loader(batch_size=batch_size), accumulate=accumulate)
        assert own.steps == 2 * 4
        results.append((own.history[-1], predicted(own)))
    for row, logits in results[1:]:
        assert row["accuracy"] == results[0][0]["accuracy"]
        assert row["loss"] == pytest.approx(results[0][0]["loss"], rel=1e-5)
        assert np.allclose(logits, results[0][1], atol=1e-5)


def right(output, labels):
    return (output.argmax(0) == labels.reshape([1, -1])).sum(), labels.size


def test_metrics_of_ones_own():
    def spread(output, labels):
        return output.max() - output.min()

    own = trainer(metrics=("accuracy", right, spread))
    fit(own, 1)
    measured = own.evaluate((X, LABELS))
    assert measured["right"] == measured["accuracy"] and measured["spread"] > 0
    assert list(measured) == ["loss", "accuracy", "right", "spread"]


def test_a_metric_that_counted_nothing_is_nan():
    own = trainer(metrics=(lambda output, labels: (owl.zeros([1]), 0),))
    assert math.isnan(fit(own, 1)[0]["<lambda>"])


@pytest.mark.parametrize("metric, error", [(lambda output, labels: output, (ValueError, TypeError)), (lambda output, labels: 1 / 0, ZeroDivisionError),
                                           (lambda output, labels: None, TypeError)])  # fmt: skip
def test_a_metric_that_fails(metric, error):
    own = trainer(metrics=(metric,))
    with pytest.raises(error):
        fit(own, 1)
    assert np.isfinite(predicted(own)).all()


def test_a_fraction_for_validation_is_drawn_by_the_seed():
    from owl.train.inputs import loaders

    seen = []
    for seed in (0, 0, 1):
        training, held = loaders(network(), (X, LABELS), 0.2, None, seed)
        assert (len(training.dataset), len(held.dataset)) == (160, 40)
        rows = [x for batch in (training, held) for part in batch for x in part[0].to_numpy().tolist()]
        assert sorted(rows) == sorted(X.tolist())
        seen.append(held.dataset.indices.tolist())
    assert seen[0] == seen[1] != seen[2] and seen[0] != list(range(160, 200))
    assert "val_loss" in fit(trainer(), 1, (X, LABELS), validation=0.2)


def test_training_data_measured_after_the_epoch():
    own = trainer()
    row = fit(own, 1, train_eval=True)[0]
    measured = own.evaluate((X, LABELS), 32)
    assert (row["train_loss"], row["train_accuracy"]) == (measured["loss"], measured["accuracy"])
    assert row["train_loss"] < row["loss"]  # of the network as it was during the epoch


def test_evaluation_draws_nothing_and_keeps_the_mode():
    own = trainer(Dropout(), Centred(16))
    before, state = weights(own), owl.random_state()
    own.evaluate((X, LABELS))
    own.predict(X)
    assert weights(own) == before and owl.random_state() == state and own.model.training
    own.model.eval()
    fit(own, 1)
    assert not own.model.training and weights(own) != before and owl.random_state() != state


def test_predict():
    own = trainer()
    whole = own.predict(X)
    assert whole.shape == [3, 200]
    for other in (own.predict(owl.from_numpy(X)), own.predict(X.astype("f8")), own.predict(loader(shuffle=False))):
        assert np.allclose(other.to_numpy(), whole.to_numpy(), atol=1e-6)
    assert own.predict(X[:1], batch_size=1).shape == [3, 1]
    assert own.predict(owl.from_numpy(X), 7).shape == [3, 200]
    assert np.allclose(own.predict((X,)).to_numpy(), whole.to_numpy(), atol=1e-6)


class Two(nn.Module):
    def __init__(self):
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x, y):
        return self.a(x) + self.b(y)


def test_a_model_of_several_inputs():
    own = trainer(model=Two())
    fit(own, 1, (X, X[::-1], LABELS))
    assert own.evaluate((X, X[::-1], LABELS))["loss"] > 0
    found = own.predict((X, X[::-1]))
    assert np.allclose(found.to_numpy(), own.model(owl.from_numpy(X), owl.from_numpy(X[::-1])).to_numpy(), atol=1e-6)
    assert np.allclose(own.predict(data.Loader((X, X[::-1], LABELS), 64)).to_numpy(), found.to_numpy(), atol=1e-6)


# ---- Shards and devices ---------------------------------------------------------------------------------------------


def test_bits_depend_on_the_shards_and_not_on_the_devices():
    first, second = owl.create_cpu_device(), owl.create_cpu_device()
    results = []
    for devices, shards in ((None, 4), ([first], 4), ([first, second], 4), ([first, second], None), (None, 2), (None, 1)):
        own = trainer(Dropout(), Centred(16), devices=devices, shards=shards)
        fit(own, 2)
        results.append((weights(own), own.history["loss"], own.history["accuracy"], predicted(own)))
    assert results[0][:3] == results[1][:3] == results[2][:3]
    assert results[3][:3] == results[4][:3]
    plain, sharded = (trainer(shards=shards, optimizer=optim.SGD(0.1)) for shards in (1, 4))
    fit(plain, 2, loader(batch_size=37))
    fit(sharded, 2, loader(batch_size=37))
    assert np.allclose(predicted(plain), predicted(sharded), atol=1e-5)
    assert plain.history["accuracy"] == sharded.history["accuracy"]


class Masks(nn.Module):
    """Notes the random arrays that it draws: three for the batch, and one whose last axis is not the batch's."""

    def __init__(self, drawn):
        self.w, self.note = owl.ones([4, 3]), drawn.append

    def forward(self, x):
        drawn = owl.randb([4, x.shape[-1]], 0.5), owl.randn([2, 3, x.shape[-1]]), owl.rand([x.shape[-1]]), owl.randn([50, 50])
        self.note(drawn)
        return self.w.T * owl.mult(x[:4], drawn[0])


def test_shards_draw_what_the_whole_batch_draws():
    found = []
    for shards in (1, 2, 4, 8, 64):
        owl.seed(3)
        drawn = []
        fit(train.Trainer(Masks(drawn), "softmax_cross_entropy", "sgd", shards=shards), 1, (X[:37], LABELS[:37]), batch_size=37)
        assert len(drawn) == min(shards, 37)
        *masks, same = zip(*drawn)
        assert len({each.to_numpy().tobytes() for each in same}) == 1
        found.append(([owl.concat(parts, -1).to_numpy().tobytes() for parts in masks], same[0].tolist(), owl.random_state()))
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_running_statistics_are_averaged_over_shards(dtype):
    own = trainer(model=network(nn.BatchNorm(16)).to(dtype=dtype), shards=2)
    layer, seen = own.model[2], []
    move = layer._move
    layer._move = lambda mean, var: (seen.append(mean), move(mean, var))
    fit(own, 1, (X[:40], LABELS[:40]), batch_size=40)
    want = sum(each.astype("float32").to_numpy() for each in seen) / 2 * 0.1
    assert np.allclose(layer.running_mean.astype("float32").to_numpy(), want, atol=2e-3)
    assert layer.num_batches_tracked.item() == 1


def test_shards_without_samples():
    own = trainer(shards=8)
    assert np.isfinite(fit(own, 1, (X[:3], LABELS[:3]))["loss"][0])
