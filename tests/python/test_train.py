"""owl.train: the loop, metrics, validation, callbacks, checkpoints, resuming, errors."""

import copy
import json
import math
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import time
import traceback
import zipfile

import numpy as np
import pytest

import children
import owl
from conftest import run_on_terminal
from owl import data, nn, optim, train
from owl.train import checkpoints

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 6)).astype(np.float32)
LABELS = (X @ RNG.standard_normal((6, 3)).astype(np.float32)).argmax(1).astype(np.int32)
SUFFIXES = [".npz", ".safetensors"]


class Dropout(nn.Module):
    """With numbers of its own from owl's generator."""

    def forward(self, x):
        return owl.elewise.mult(x, owl.randb(x.shape, 0.8) * 1.25) if self.training else x


class Centred(nn.Module):
    """Subtracts a running mean, as batch normalisation does."""

    def __init__(self, n):
        self.buffer("mean", owl.zeros([n, 1]))

    def forward(self, x):
        if not self.training:
            return x - self.mean
        mean = x.mean(1)
        self.mean = owl.stop_gradient(self.mean * 0.9 + mean * 0.1)
        return x - mean


def network(*more, seed=1):
    owl.seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), *more, nn.Linear(16, 3))


def trainer(*more, optimizer=None, model=None, **options):
    model = network(*more) if model is None else model
    optimizer = optim.Adam(optim.cosine(0.01, 200)) if optimizer is None else optimizer
    return train.Trainer(model, "softmax_cross_entropy", optimizer, **options)


def loader(**options):
    return data.Loader((X, LABELS), **{"batch_size": 32, "shuffle": True, **options})


def fit(own, epochs, given=None, **options):
    return own.fit(loader() if given is None else given, epochs, **{"progress": False, **options})


def weights(own):
    return {name: array.to_numpy().tobytes() for name, array in own.model.state().items()}


class StopAt:
    """Ends the training after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, own, step):
        if step == self.step:
            own.stop()


# ---- Fitting --------------------------------------------------------------------------------------------------------


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


def predicted(own):
    return own.predict(X).to_numpy()


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


# ---- Checkpoints ----------------------------------------------------------------------------------------------------


def resumable(**options):
    return trainer(Dropout(), Centred(16), **options)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"validation": 0.2, "data": (X, LABELS)}])
def test_a_run_that_is_cut_anywhere_ends_with_the_same_file(tmp_path, suffix, options):
    options = dict(options)
    given = options.pop("data", None)
    whole = resumable()
    fit(whole, 3, given, callbacks=[train.EarlyStopping("loss", 5)], **options)
    whole.save(tmp_path / f"whole{suffix}")
    expected = (tmp_path / f"whole{suffix}").read_bytes()
    for step in range(1, whole.steps):
        cut = resumable()
        fit(cut, 3, given, callbacks=[StopAt(step), train.EarlyStopping("loss", 5)], **options)
        assert cut.steps == step
        cut.save(tmp_path / f"cut{suffix}")
        owl.seed(99)
        rest = trainer(Dropout(), Centred(16), model=nn.Sequential(nn.Linear(6, 16), nn.Tanh(), Dropout(), Centred(16), nn.Linear(16, 3)))
        rest.load(tmp_path / f"cut{suffix}")
        rest.save(tmp_path / f"again{suffix}")
        assert (tmp_path / f"again{suffix}").read_bytes() == (tmp_path / f"cut{suffix}").read_bytes(), step
        fit(rest, 3, given, callbacks=[train.EarlyStopping("loss", 5)], **options)
        rest.save(tmp_path / f"rest{suffix}")
        assert (tmp_path / f"rest{suffix}").read_bytes() == expected, step


HUNDRED_STEPS = """
    import sys
    import numpy as np
    import owl
    from owl import data, nn, optim, train
    class StopAt:
        def on_step(self, trainer, step):
            if step == int(sys.argv[1]):
                trainer.stop()
    x = np.random.default_rng(0).standard_normal((1000, 20)).astype("f4")
    labels = (x.sum(1) > 0).astype("i4")
    owl.seed(5)
    model = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 2))
    trainer = train.Trainer(model, "softmax_cross_entropy", optim.Adam(optim.cosine(0.01, 100)))
    loader = data.Loader((x, labels), 64, shuffle=True, seed=2, transform=lambda x, rng: x + rng.normal(0, 0.1, x.shape).astype("f4"))
    if sys.argv[2]:
        trainer.load(sys.argv[2])
    trainer.fit(loader, 7, callbacks=[StopAt()], progress=False)
    assert trainer.steps == int(sys.argv[1])
    trainer.save(sys.argv[3])
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_hundred_steps_in_two_processes(tmp_path, threads):
    env = {"OWL_NUM_THREADS": str(threads)}
    whole, cut, rest = (tmp_path / f"{name}.npz" for name in ("whole", "cut", "rest"))
    children.run(HUNDRED_STEPS, 100, "", whole, env=env)
    for step in children.scaled(1, 5) * [37] + random.sample(range(1, 100), children.scaled(1, 20)):
        children.run(HUNDRED_STEPS, step, "", cut, env=env)
        children.run(HUNDRED_STEPS, 100, cut, rest, env=env)
        assert subprocess.run(["cmp", whole, rest]).returncode == 0, step


def test_a_checkpoint_is_a_file_of_arrays_for_other_programs(tmp_path):
    own = resumable()
    fit(own, 1)
    own.save(tmp_path / "a.npz")
    own.save(tmp_path / "a.safetensors")
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["model.0.weight"], own.model.state()["0.weight"].to_numpy())
    for suffix in SUFFIXES:
        assert "optimizer.0.weight.exp_avg" in owl.load(tmp_path / f"a{suffix}")
        ((key, text),) = owl.load_metadata(tmp_path / f"a{suffix}").items()
        assert key == "owl.train" and json.dumps(json.loads(text), sort_keys=True) == text
    text = (tmp_path / "a.npz").read_bytes()
    assert b"images_per_s" not in text and str(time.localtime().tm_year).encode() not in text


def test_it_goes_on_after_the_loaded_epoch(tmp_path):
    own = trainer()
    fit(own, 2)
    own.save(tmp_path / "two.npz")
    other = trainer(optimizer=optim.Adam(optim.cosine(0.01, 200)))
    other.load(tmp_path / "two.npz")
    assert len(other.history) == 2 and other.steps == own.steps and other.history[0].get("images_per_s") is None
    assert fit(other, 3)["epoch"] == [1, 2, 3]
    fit(own, 3)
    assert weights(own) == weights(other)


def test_a_network_whose_sizes_are_found_out_by_the_first_call(tmp_path):
    own = trainer()
    fit(own, 1)
    own.save(tmp_path / "a.npz")
    lazy = trainer(model=nn.Sequential(nn.Linear(None, 16), nn.Tanh(), nn.Linear(None, 3)))
    lazy.load(tmp_path / "a.npz")
    assert weights(lazy) == weights(own)


def test_other_data_within_an_epoch(tmp_path):
    own = trainer()
    fit(own, 2, callbacks=[StopAt(10)])
    with pytest.raises(ValueError, match="within an epoch of other data.*batch_size 32, here 16"):
        fit(own, 2, loader(batch_size=16))
    fit(own, 2)
    fit(own, 3, loader(batch_size=16))  # between two epochs it may change
    assert len(own.history) == 3


def saved(folder, own=None, suffix=".npz"):
    own = trainer() if own is None else own
    fit(own, 1)
    own.save(folder / f"saved{suffix}")
    return folder / f"saved{suffix}", own


def assert_refused(path, own, words, error=owl.DataError):
    before, state, place = weights(own), json.dumps(own.optimizer.state(), default=str), owl.random_state()
    with pytest.raises(error, match=words) as caught:
        own.load(path)
    assert str(path) in str(caught.value) or isinstance(caught.value, ImportError)
    assert weights(own) == before and owl.random_state() == place
    assert {k: v for k, v in own.optimizer.state().items() if isinstance(v, (int, float, str))} == {
        k: v for k, v in json.loads(state).items() if k in own.optimizer.state() and isinstance(own.optimizer.state()[k], (int, float, str))}  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_checkpoint_of_another_model_or_optimizer(tmp_path, suffix):
    path, own = saved(tmp_path, suffix=suffix)
    larger = trainer(model=nn.Sequential(nn.Linear(6, 17), nn.Tanh(), nn.Linear(17, 3), nn.Linear(3, 3)))
    assert_refused(path, larger, "missing: 3.weight, 3.bias.*0.weight.*17")
    assert_refused(path, trainer(optimizer=optim.SGD(0.1)), "Adam")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_or_a_missing_end(tmp_path, suffix):
    path, own = saved(tmp_path, suffix=suffix)
    good = path.read_bytes()
    places = random.sample(range(len(good)), children.scaled(150, 5000)) + list(range(40)) + [len(good) - 1 - i for i in range(120)]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << random.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(owl.DataError, match="saved"):
            checkpoints.read(path)
    for length in [0, 1, 8, 100, len(good) // 2, len(good) - 1]:
        path.write_bytes(good[:length])
        assert_refused(path, own, "saved")
    path.write_bytes(good + b"x")
    assert_refused(path, own, "saved")
    path.write_bytes(good)
    own.load(path)


def signed(data):
    """The data with the right checksum."""
    import hashlib

    at = data.index(checkpoints._MARK) + len(checkpoints._MARK)
    blank = data[:at] + checkpoints._BLANK + data[at + 64 :]
    return blank[:at] + hashlib.sha256(blank).hexdigest().encode() + blank[at + 64 :]


HOSTILE = {
    "an object": ("tree", lambda t: t.update(model={"dict": {"0.weight": {"array": "nowhere"}}})),
    "no dict": ("tree", lambda t: t.update(place=[1, 2])),
    "a random state": ("tree", lambda t: t.update(random=["a", {}])),
    "a list of steps": ("tree", lambda t: t.update(steps=[])),
    "a history": ("tree", lambda t: t.update(history=[3])),
    "an optimizer": ("tree", lambda t: t.update(optimizer=None)),
    "an optimizer's steps": ("tree", lambda t: t["optimizer"]["dict"].update(steps=-1)),
    "missing parts": ("tree", lambda t: t.clear()),
    "a version": ("content", lambda c: c.update(version=2)),
    "no version": ("content", lambda c: c.pop("version")),
    "views": ("content", lambda c: c.update(views={"model.0.weight": "ctypes"})),
}


def altered(path, what):
    """A checkpoint with another text, in the format of .npz, and a right checksum."""
    with zipfile.ZipFile(path) as members:
        parts = {name: members.read(name) for name in members.namelist()}
    metadata = json.loads(parts["__metadata__.json"])
    content = json.loads(metadata["owl.train"])
    level, change = HOSTILE[what]
    change(content if level == "content" else content["tree"]["dict"])
    parts["__metadata__.json"] = json.dumps({"owl.train": json.dumps(content)}).encode()
    write_members(path, parts)


def write_members(path, parts, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as members:
        members.comment = checkpoints._MARK + checkpoints._BLANK
        for name, value in parts.items():
            members.writestr(name, value)
    path.write_bytes(signed(path.read_bytes()))


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_texts(tmp_path, what):
    path, own = saved(tmp_path)
    altered(path, what)
    assert_refused(path, own, "checkpoint|ml_dtypes", error=(owl.DataError, ImportError) if what == "views" else owl.DataError)


def header(shape, dtype="'<f4'"):
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_hostile_members(tmp_path):
    path, own = saved(tmp_path)
    with zipfile.ZipFile(path) as members:
        good = {name: members.read(name) for name in members.namelist()}
    for name, value in (("model.0.weight.npy", header((1 << 40, 1 << 20)) + bytes(8)), ("model.0.weight.npy", header((1 << 40, 0))),
                        ("model.0.weight.npy", header((6, 16)) + bytes(3)), ("model.0.weight.npy", b"text"),
                        ("model.0.weight.npy", header((2,), "'|O'") + bytes(16)), ("__metadata__.json", b"[" * 100_000),
                        ("__metadata__.json", b"\xff"), ("model.0.weight.npy", header((-1,)) + bytes(8))):  # fmt: skip
        write_members(path, good | {name: value})
        assert_refused(path, own, "saved")
    write_members(path, good, zipfile.ZIP_DEFLATED)
    assert_refused(path, own, "compressed")
    write_members(path, {name: value for name, value in good.items() if name != "__metadata__.json"})
    assert_refused(path, own, "saved")
    for text in (b"", b"x" * 1000, b"PK\x03\x04"):
        path.write_bytes(text)
        assert_refused(path, own, "checksum")
    path.unlink()
    assert_refused(path, own, "no such file")
    with pytest.raises(ValueError, match="safetensors"):
        own.save(tmp_path / "name.pt")


def test_what_no_file_can_hold(tmp_path):
    with pytest.raises(TypeError, match="a.b is set"):
        checkpoints.write(tmp_path / "a.npz", {"a": {"b": set()}})
    with pytest.raises(TypeError, match="key 3"):
        checkpoints.write(tmp_path / "a.npz", {"a": {3: 1}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tree_comes_back(tmp_path, suffix):
    tree = {"a": [1, 2.5, None, True, "text", math.inf, [owl.ones([2, 3])]], "a.0": owl.zeros([1], "int32"), "b": {"c": {}, "array": 1},
            "a.6.0": owl.eye(2)}  # fmt: skip
    path = tmp_path / f"tree{suffix}"
    checkpoints.write(path, tree)
    found = checkpoints.read(path)
    assert found["a"][:6] == tree["a"][:6] and found["b"] == tree["b"]
    assert found["a"][6][0].to_numpy().tolist() == [[1, 1]] * 3 and found["a.6.0"].to_numpy().tolist() == [[1, 0], [0, 1]]
    assert found["a.0"].dtype == np.int32
    checkpoints.write(tmp_path / f"again{suffix}", dict(reversed(found.items())))
    assert path.read_bytes() == (tmp_path / f"again{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_parameters_of_other_types(tmp_path, suffix, dtype):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")

    def made(seed):
        owl.seed(seed)
        return trainer(model=network(nn.BatchNorm(16), seed=seed).to(dtype=dtype), optimizer=optim.Adam(0.01, eps=1e-4))

    def bits(own):
        arrays = {**own.model.state(), **{name: x for name, x in own.optimizer.state().items() if isinstance(x, owl.NArray)}}
        return {name: (x.dtype.name, x.astype("float64").to_numpy().tobytes()) for name, x in arrays.items()}

    own, other = made(1), made(2)
    fit(own, 2)
    own.save(tmp_path / f"run{suffix}")
    other.load(tmp_path / f"run{suffix}")
    assert bits(own) == bits(other) and other.model[0].weight.dtype.name == dtype
    assert other.optimizer.state()["0.weight.exp_avg"].dtype.name == dtype
    fit(own, 3)
    fit(other, 3)
    assert bits(own) == bits(other)
    own.save(tmp_path / f"a{suffix}")
    other.save(tmp_path / f"b{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_bfloat16_without_ml_dtypes(tmp_path):
    """Which only to_numpy needs: neither a module's .npz nor a checkpoint does."""
    children.run("""
        import importlib.util, sys
        sys.modules["ml_dtypes"] = None
        import numpy as np
        import owl
        from owl import nn, train
        def made():
            return train.Trainer(nn.Linear(6, 3).to(dtype="bfloat16"), "softmax_cross_entropy", "adam")
        own, other = made(), made()
        own.fit((np.ones((100, 6), "f4"), np.zeros(100, "i4")), 1, progress=False)
        try:
            own.model.weight.to_numpy()
        except owl.DTypeError:
            pass
        else:
            raise SystemExit("ml_dtypes is there")
        for suffix in [".npz"] + [".safetensors"] * bool(importlib.util.find_spec("safetensors")):
            own.save(sys.argv[1] + "/run" + suffix)
            other.load(sys.argv[1] + "/run" + suffix)
            assert other.model.weight.dtype == own.model.weight.dtype
            assert (other.model.weight == own.model.weight).all().item()
        own.model.save(sys.argv[1] + "/net.npz")
        third = made().model
        third.load(sys.argv[1] + "/net.npz")
        assert (third.weight == own.model.weight).all().item()
    """, tmp_path)  # fmt: skip


def test_columns_keep_their_order(tmp_path):
    """Also of a run that is cut within an epoch: its log has the same head."""
    whole, cut, goes_on = trainer(), trainer(), trainer()
    fit(whole, 2, validation=(X, LABELS))
    assert len(fit(cut, 2, validation=(X, LABELS), callbacks=[StopAt(10)])) == 1
    cut.save(tmp_path / "cut.npz")
    goes_on.load(tmp_path / "cut.npz")
    assert list(goes_on.history[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    fit(goes_on, 2, validation=(X, LABELS))
    assert goes_on.history.columns == whole.history.columns
    assert list(goes_on.history[1]) == list(whole.history[1])


# ---- Writing behind the script --------------------------------------------------------------------------------------


def test_checkpoints_by_epochs_and_steps(tmp_path):
    own = trainer()
    fit(own, 4, callbacks=[train.Checkpoint(tmp_path / "e{epoch}.npz", every=2), train.Checkpoint(tmp_path / "newest.npz"),
                           train.Checkpoint(tmp_path / "s{step}.npz", every=10, unit="step")])  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e2.npz", "e4.npz", "newest.npz", "s10.npz", "s20.npz"]
    own.save(tmp_path / "saved.npz")
    assert (tmp_path / "saved.npz").read_bytes() == (tmp_path / "newest.npz").read_bytes() == (tmp_path / "e4.npz").read_bytes()
    for options in ({"every": 0}, {"unit": "hour"}, {"path": "a.pt"}):
        with pytest.raises(ValueError):
            train.Checkpoint(**{"path": "a.npz", **options})


def test_a_checkpoint_within_an_epoch_is_of_its_step(tmp_path):
    own = resumable()
    fit(own, 2, callbacks=[train.Checkpoint(tmp_path / "s{step}.npz", unit="step")])
    cut = resumable()
    fit(cut, 2, callbacks=[StopAt(9)])
    cut.save(tmp_path / "cut.npz")
    assert (tmp_path / "cut.npz").read_bytes() == (tmp_path / "s9.npz").read_bytes()


def test_the_best_checkpoint(tmp_path):
    own = trainer(optimizer=optim.SGD(lambda step: 0.3 if step < 20 else 50.0))
    history = fit(own, 6, validation=(X, LABELS), callbacks=[train.BestCheckpoint(tmp_path / "best.npz")])
    best = int(np.nanargmin(history["val_loss"])) + 1
    assert best < 6
    other = trainer(optimizer=optim.SGD(lambda step: 0.3))
    other.load(tmp_path / "best.npz")
    assert len(other.history) == best
    assert other.evaluate((X, LABELS))["loss"] == history["val_loss"][best - 1]


KILLED = """
    import os, sys
    import numpy as np
    import owl
    from owl import nn, optim, train
    x = np.random.default_rng(0).standard_normal((400, 50)).astype("f4")
    labels = (x.sum(1) > 0).astype("i4")
    model = nn.Sequential(nn.Linear(50, 300), nn.ReLU(), nn.Linear(300, 2))
    trainer = train.Trainer(model, "softmax_cross_entropy", optim.Adam())
    class Begun:
        said = False
        def on_step(self, trainer, step):
            if not self.said and os.path.exists(sys.argv[1]):
                self.said = True
                print("begun", flush=True)
    trainer.fit((x, labels), 100000, callbacks=[train.Checkpoint(sys.argv[1], unit="step"), Begun()], progress=False)
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_newest_whole_checkpoint_loads_after_a_kill(tmp_path, suffix):
    script = tmp_path / "script.py"
    script.write_text("\n".join(line[4:] for line in KILLED.splitlines()))
    path = tmp_path / f"run{suffix}"
    steps = []
    for _ in range(children.scaled(3, 100)):
        process = subprocess.Popen([sys.executable, script, path], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "begun\n"
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        process.wait()
        process.stdout.close()
        own = train.Trainer(nn.Sequential(nn.Linear(50, 300), nn.ReLU(), nn.Linear(300, 2)), "softmax_cross_entropy", "adam")
        own.load(path)
        assert all(np.isfinite(array.to_numpy()).all() for array in own.model.state().values())
        steps.append(own.steps)
        path.unlink()
    assert min(steps) >= 1
    print(f"{len(steps)} of {len(steps)} loaded, at steps {min(steps)} to {max(steps)}")


def test_a_full_disk(tmp_path):
    path = tmp_path / "run.npz"
    own = trainer()
    fit(own, 1)
    own.save(path)
    before = path.read_bytes()
    children.run("""
        import resource, signal, sys, warnings
        import numpy as np
        import owl
        from owl import nn, train
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        x = np.ones((100, 6), "f4")
        trainer = train.Trainer(nn.Linear(6, 3), "softmax_cross_entropy", "adam")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            trainer.fit((x, np.zeros(100, "i4")), 5, callbacks=[train.Checkpoint(sys.argv[1], unit="step")], progress=False)
        assert len(trainer.history) == 5
        assert len(seen) == 1, [str(each.message) for each in seen]
        text = str(seen[0].message)
        assert "File too large" in text and sys.argv[1] in text and "training goes on" in text, text
        assert seen[0].filename == __file__, seen[0].filename
        try:
            trainer.save(sys.argv[1])
        except OSError as error:
            assert "File too large" in str(error)
        else:
            raise SystemExit("saved")
    """, path)  # fmt: skip
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["run.npz"]


def test_training_waits_for_no_file(tmp_path, monkeypatch):
    """A slow disk: newer files take the place of those that wait, and fit returns when the last is there."""
    write, written = checkpoints.write, []

    def slow(path, tree):
        time.sleep(0.1)
        written.append(tree["steps"])
        write(path, tree)

    monkeypatch.setattr(checkpoints, "write", slow)
    own = trainer()
    fit(own, 3, callbacks=[train.Checkpoint(tmp_path / "a.npz", unit="step")])
    assert written == sorted(written) and written[-1] == own.steps and len(written) < own.steps
    other = trainer()
    other.load(tmp_path / "a.npz")
    assert weights(own) == weights(other)


# ---- Callbacks ------------------------------------------------------------------------------------------------------


class Recorder:
    def __init__(self):
        self.calls = []

    def on_start(self, own):
        self.calls.append("start")

    def on_step(self, own, step):
        assert own.steps == step
        self.calls.append(step)

    def on_validation(self, own, row):
        assert "val_loss" in row and len(own.history) == row["epoch"] - 1
        self.calls.append("validation")

    def on_epoch(self, own, row):
        assert own.history[-1] is row
        self.calls.append("epoch")

    def on_end(self, own):
        self.calls.append("end")


def test_when_callbacks_are_called():
    recorder = Recorder()
    fit(trainer(), 2, loader(batch_size=100), validation=(X, LABELS), callbacks=[recorder, object()])
    assert recorder.calls == ["start", 1, 2, "validation", "epoch", 3, 4, "validation", "epoch", "end"]


@pytest.mark.parametrize("method", ["on_start", "on_step", "on_loss", "on_validation", "on_epoch", "on_end"])
def test_a_callback_that_raises_leaves_a_usable_trainer(method):
    class Raises:
        pass

    def fault(*arguments):
        if len(own.history) >= (method in ("on_epoch", "on_end")):
            raise KeyError("a fault of mine")

    setattr(Raises, method, lambda self, *arguments: fault(*arguments))
    own, whole = trainer(Dropout()), trainer(Dropout())
    own.model.load_state(whole.model.state())
    owl.seed(7)
    fit(whole, 3, validation=(X, LABELS))
    owl.seed(7)
    recorder = Recorder()
    with pytest.raises(KeyError, match="a fault of mine") as caught:
        fit(own, 3, validation=(X, LABELS), callbacks=[recorder, Raises()])
    assert "in fault" in "".join(traceback.format_exception(caught.value))
    assert recorder.calls[-1] == "end" and own.model.training
    fit(own, 3, validation=(X, LABELS))
    assert weights(own) == weights(whole)
    assert own.history["val_loss"] == whole.history["val_loss"] and own.history["loss"] == whole.history["loss"]


def test_early_stopping():
    own = trainer(optimizer=optim.SGD(0.0))
    assert len(fit(own, 50, validation=(X, LABELS), callbacks=[train.EarlyStopping(patience=2)])) == 3
    own = trainer(optimizer=optim.Adam(0.01))
    assert len(fit(own, 5, callbacks=[train.EarlyStopping("accuracy", patience=5)])) == 5
    own = trainer(optimizer=optim.Adam(0.001))
    assert len(fit(own, 9, callbacks=[train.EarlyStopping("loss", patience=2, min_delta=10.0)])) == 3
    for monitor in ("val_loss", "precision"):
        with pytest.raises(ValueError, match=f"{monitor}.*loss, accuracy"):
            fit(trainer(), 1, callbacks=[train.EarlyStopping(monitor)])


def test_stop_on_nan_names_the_step():
    def breaks(x, rng):
        breaks.count += 1
        return x * np.float32(np.nan) if breaks.count == 10 else x

    breaks.count = 0
    own = trainer()
    with pytest.raises(owl.NaNError, match=r"step 10 \(epoch 2\) is nan"):
        fit(own, 9, loader(transform=breaks, prefetch=0), callbacks=[train.StopOnNaN()])
    assert len(own.history) == 1
    assert math.isnan(fit(trainer(optimizer=optim.SGD(1e38)), 3)[-1]["loss"])  # without it training goes on


def test_the_csv_log(tmp_path):
    own = trainer()
    fit(own, 2, callbacks=[train.CSVLog(tmp_path / "log.csv")])
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy,images_per_s" and len(lines) == 3 and lines[2].startswith("2,")


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    fit(trainer(), 2, callbacks=[train.TensorBoard(tmp_path / "board")])
    (file,) = (tmp_path / "board").iterdir()
    content = file.read_bytes()
    assert b"step/loss" in content and b"epoch/accuracy" in content


@pytest.mark.parametrize("package, use", [("tensorboardX", lambda: train.TensorBoard("folder")),
                                          ("safetensors", lambda: train.Checkpoint("run.safetensors")),
                                          ("safetensors", lambda: train.BestCheckpoint("run.safetensors")),
                                          ("safetensors", lambda: trainer().save("run.safetensors")),
                                          ("matplotlib", lambda: train.History([{"epoch": 1, "loss": 1.0}]).plot("a.png"))])  # fmt: skip
def test_packages_that_are_not_installed(monkeypatch, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    for part in ("figure", "numpy"):
        monkeypatch.delitem(sys.modules, f"{package}.{part}", raising=False)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        use()


# ---- History --------------------------------------------------------------------------------------------------------


def test_the_history(tmp_path):
    history = train.History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "val_loss": 0.3}])
    assert history["val_loss"] == [None, 0.3] and history[0]["loss"] == 0.5 and "loss" in history and "f1" not in history
    assert [row["epoch"] for row in history] == [1, 2] and "0.25" in repr(history)
    with pytest.raises(KeyError, match="epoch, loss, val_loss"):
        history["accuracy"]
    for name in ("history", "loss"):
        with pytest.raises(AttributeError, match=rf'History has no {name}: write history\["loss"\]'):
            getattr(history, name)
    assert copy.deepcopy(history) == pickle.loads(pickle.dumps(history)) == history
    history.to_csv(tmp_path / "h.csv")
    history.to_json(tmp_path / "h.json")
    assert (tmp_path / "h.csv").read_text() == "epoch,loss,val_loss\n1,0.5,\n2,0.25,0.3\n"
    assert json.loads((tmp_path / "h.json").read_text()) == history.rows
    with pytest.raises(ValueError, match="no rows"):
        train.History().plot(tmp_path / "h.png")


def test_a_plot(tmp_path):
    pytest.importorskip("matplotlib")
    fit(trainer(), 3, validation=(X, LABELS), train_eval=True).plot(tmp_path / "h.png")
    assert (tmp_path / "h.png").read_bytes()[:4] == b"\x89PNG"


# ---- Progress and Ctrl-C --------------------------------------------------------------------------------------------


def test_a_line_an_epoch(capfd):
    own = trainer()
    own.fit((X, LABELS), 2, validation=(X, LABELS))
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("epoch 2/2: loss ") and "val_accuracy" in lines[1] and lines[1].endswith(" images/s")
    assert err == ""
    fit(own, 3)
    assert capfd.readouterr() == ("", "")


BAR = """
import numpy as np, owl, sys
from owl import nn, train
if "no" in sys.argv:
    import importlib.util
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name: None if name == "tqdm" else found(name)
x = np.ones((20000, 6), "f4")
train.Trainer(nn.Linear(6, 3), "softmax_cross_entropy", "adam").fit((x, np.zeros(20000, "i4")), 2)
"""


def test_a_bar_on_a_terminal(tmp_path):
    pytest.importorskip("tqdm")
    code, out, shown = run_on_terminal([sys.executable, "-c", BAR], 100, env=os.environ | {"COLUMNS": "150"})
    assert code == 0 and "epoch 2/2" in out  # stdout is no terminal, and gets the lines
    assert "epoch 1/2: 100%" in shown and "20000/20000" in shown and "loss " in shown and "accuracy" in shown
    code, out, shown = run_on_terminal([sys.executable, "-c", BAR, "no"], 100)
    assert code == 0 and "pip install tqdm" in shown and "epoch 2/2" in out


def test_ctrl_c_ends_fit_between_two_steps(tmp_path):
    """Sent many times: the trainer stands behind a whole step each time, and ends as one that was left alone."""
    children.run("""
        import os, random, signal, threading, time
        import numpy as np
        import owl
        from owl import nn, optim, train
        x = np.random.default_rng(0).standard_normal((3000, 6)).astype("f4")
        labels = (x.sum(1) > 0).astype("i4")
        def make():
            owl.seed(3)
            return train.Trainer(nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 2)), "softmax_cross_entropy", optim.Adam())
        whole = make()
        whole.fit((x, labels), 6, validation=0.1, progress=False)
        cut, times = make(), 0
        while len(cut.history) < 6:
            timer = threading.Timer(random.uniform(0, 0.1), lambda: os.kill(os.getpid(), signal.SIGINT))
            try:
                timer.start()
                history = cut.fit((x, labels), 6, validation=0.1, progress=False)
                assert history is cut.history
                timer.join()
                if len(history) < 6:
                    times += 1
                else:
                    time.sleep(0.05)
            except KeyboardInterrupt:
                timer.join()  # it came before or after the training itself
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        print("interrupted", times, "times")
        for name, array in whole.model.state().items():
            assert (array.to_numpy() == cut.model.state()[name].to_numpy()).all(), name
        assert whole.history["val_loss"] == cut.history["val_loss"] and whole.history["loss"] == cut.history["loss"]
    """)  # fmt: skip


class InterruptedAdam(optim.Adam):
    """Gets SIGINT in the middle of an update: after the first of its parameters."""

    at = 0

    def step(self, *arguments):
        self.at -= 1
        if self.at == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().step(*arguments)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_ctrl_c_does_not_cut_an_update(accumulate):
    whole, cut = (trainer(Dropout(), optimizer=kind(0.01)) for kind in (optim.Adam, InterruptedAdam))
    owl.seed(4)
    fit(whole, 3, accumulate=accumulate)
    owl.seed(4)
    cut.optimizer.at = 4 * 2 + 2  # the third update, of four parameters
    assert len(fit(cut, 3, accumulate=accumulate)) < 3 and cut.steps == 3
    fit(cut, 3, accumulate=accumulate)
    assert weights(cut) == weights(whole) and cut.history["loss"] == whole.history["loss"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_a_finalizer_swallows():
    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)  # Python drops the KeyboardInterrupt

    class Drops:
        def on_step(self, own, step):
            if step == 3:
                Finalized()

    whole, cut = trainer(), trainer()
    fit(whole, 3)
    assert len(fit(cut, 3, callbacks=[Drops()])) < 3 and cut.steps == 3
    fit(cut, 3)
    assert weights(cut) == weights(whole) and cut.history["loss"] == whole.history["loss"]


class Samples:
    """A data set of samples, not of arrays."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return X[i], self.labels[i]


@pytest.mark.parametrize("label", [3, -1, 1000])
@pytest.mark.parametrize("kind", ["tuple", "column", "int64", "part", "samples", "shards", "accumulate", "nll"])
def test_a_label_out_of_range_leaves_a_usable_trainer(kind, label):
    """An operation that fails would take all parameters with it."""
    wrong = LABELS.astype("i8") if kind == "int64" else LABELS.copy()
    wrong[150] = label
    wrong = wrong[:, None] if kind == "column" else wrong
    given = Samples(wrong) if kind == "samples" else (X, wrong)
    model = network(nn.BatchNorm(16), nn.Dropout(0.1), *[nn.LogSoftmax()] * 0)
    own = trainer(model=model, shards=2 if kind == "shards" else None)
    if kind == "nll":
        own = train.Trainer(nn.Sequential(*model, nn.LogSoftmax()), "nll", "adam")
    before, random = weights(own), owl.random_state()
    options = {"accumulate": 3} if kind == "accumulate" else {"validation": 0.01} if kind == "part" else {}
    with pytest.raises(owl.IndexError, match=f"label {label} is out of range for 3 classes, 0 to 2") as caught:
        fit(own, 2, given, **options)
    if kind == "samples":
        own.model.eval()
        assert np.isfinite(predicted(own)).all()
    else:
        assert weights(own) == before and owl.random_state() == random and own.steps == 0
        assert kind == "part" or "sample 150 of the training data has it" in str(caught.value)
    fit(own, 2, (X, LABELS), **options)
    assert len(own.history) == 2 and np.isfinite(predicted(own)).all()


def test_classes_for_a_model_of_one_output():
    own = train.Trainer(nn.Linear(6, 1), "softmax_cross_entropy", "adam")
    before = weights(own)
    for labels in (LABELS > 0, (LABELS > 0)[:, None]):
        with pytest.raises(owl.IndexError, match="label 1 is out of range for 1 classes.*learns by binary_cross_entropy"):
            fit(own, 1, (X, labels.astype("i4")))
    assert weights(own) == before


def test_labels_that_are_no_classes_are_not_compared():
    hot = np.eye(3, dtype="i4")[LABELS] * 7
    assert len(fit(trainer(metrics=()), 1, (X, hot))) == 1
    own = train.Trainer(nn.Linear(6, 1), lambda output, labels: nn.mse(output, labels.astype("float32").reshape([1, -1])), "adam", metrics=())
    assert len(fit(own, 1, (X, LABELS * 100))) == 1


@pytest.mark.parametrize("fault", ["metric", "loss", "model"])
def test_a_step_that_raises_moves_nothing(fault):
    """Neither buffers nor random numbers: another fit goes on with the bits of a run without the fault."""
    state = {"armed": False, "calls": 0}

    def fails(*arguments):
        state["calls"] += 1
        if state["armed"] and state["calls"] == 5:
            raise ZeroDivisionError("mine")
        return owl.zeros([1])

    def loss(output, labels):
        if fault == "loss":
            fails()
        return nn.softmax_cross_entropy(output, labels)

    class Fails(nn.Module):
        def forward(self, x):
            if fault == "model" and self.training:
                fails()
            return x

    def made():
        model = network(nn.BatchNorm(16), nn.Dropout(0.2), Fails())
        return train.Trainer(model, loss, optim.Adam(0.01), metrics=[fails] if fault == "metric" else ["accuracy"])

    whole, cut = made(), made()
    cut.model.load_state(whole.model.state())
    owl.seed(3)
    fit(whole, 2)
    owl.seed(3)
    state.update(armed=True, calls=0)
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit(cut, 2)
    assert cut.steps == 4
    fit(cut, 2)
    assert weights(cut) == weights(whole) and cut.history["loss"] == whole.history["loss"]


def test_a_checkpoint_mends_a_trainer_whose_parameters_have_failed(tmp_path):
    own = trainer()
    fit(own, 1)
    own.save(tmp_path / "run.npz")
    good = weights(own)
    failing = owl.op(lambda a: 1 / 0, backward=lambda err, y, a: err)

    def loss(output, labels):
        return nn.softmax_cross_entropy(output + failing(output), labels)

    own.parts.loss = loss
    with pytest.raises(owl.Error, match="division by zero"):
        fit(own, 2)
    own.parts.loss = nn.softmax_cross_entropy
    own.load(tmp_path / "run.npz")
    assert weights(own) == good
    fit(own, 2)
    assert len(own.history) == 2 and np.isfinite(predicted(own)).all()


def test_ctrl_c_twice_ends_a_step_that_hangs():
    children.run("""
        import os, signal, threading, time
        import numpy as np
        import owl
        from owl import nn, train
        def hangs(output, labels):
            time.sleep(30)
        for delay in (0.3, 0.6):
            threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        trainer = train.Trainer(nn.Linear(6, 2), "softmax_cross_entropy", "adam", metrics=[hangs])
        history = trainer.fit((np.ones((10, 6), "f4"), np.zeros(10, "i4")), 1, progress=False)
        assert len(history) == 0 and time.monotonic() - start < 20
    """)  # fmt: skip


def test_another_handler_of_ctrl_c_stays():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *arguments: seen.append(1))
    try:
        class Sends:
            def on_step(self, own, step):
                os.kill(os.getpid(), signal.SIGINT)

        fit(trainer(), 1, loader(batch_size=100), callbacks=[Sends()])
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(seen) == 2
