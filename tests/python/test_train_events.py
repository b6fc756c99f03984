"""owl.train: callbacks, history, progress, Ctrl-C, and errors that leave a usable trainer."""

import copy
import json
import math
import os
import pickle
import signal
import sys
import time
import traceback

import numpy as np
import pytest

import children
import owl
from conftest import run_on_terminal, same_bits
from owl import nn, optim, train
from training_parts import LABELS, Dropout, X, fit, loader, network, predicted, trainer, weights


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


def test_a_callback_changes_what_is_trained():
    class Freezes:
        def on_step(self, own, step):
            if step == 2:
                own.model.freeze("0")
                self.frozen, self.free = (own.model[i].weight.to_numpy() for i in (0, 2))

    own, change = trainer(), Freezes()
    fit(own, 1, callbacks=[change])
    assert own.steps > 2 and same_bits(own.model[0].weight.to_numpy(), change.frozen)
    assert not same_bits(own.model[2].weight.to_numpy(), change.free)


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
