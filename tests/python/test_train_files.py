"""owl.train: checkpoints, resuming, and files that are written behind the script."""

import json
import math
import random
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

import children
import owl
from owl import nn, optim, train
from owl.train import checkpoints
from owl.train.writer import Writer
from training_parts import LABELS, SUFFIXES, Centred, Dropout, StopAt, X, fit, loader, network, trainer, weights


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


def test_ctrl_c_while_a_file_is_handed_over(tmp_path):
    """At random moments within the hand-over and the wait behind it: nothing hangs, and the next wait sees the last file."""
    children.run("""
        import random, signal, time
        from owl.train import checkpoints
        from owl.train.writer import Writer

        written, interrupted = [], 0
        checkpoints.write = lambda path, tree: written.append((path, tree))

        def hand_over(writer, i):
            for name in "abc":
                writer.put(name, lambda i=i: i)
            writer.drain()

        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        begun = time.perf_counter()
        for i in range(50):
            hand_over(Writer(), -1)
        length = (time.perf_counter() - begun) / 50
        random.seed(7)
        for i in range(600):
            writer = Writer()
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, random.uniform(0, 1.2 * length)))
                hand_over(writer, i)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            written.clear()
            while True:
                try:
                    hand_over(writer, i)
                    break
                except KeyboardInterrupt:
                    pass
            assert set(written) >= {(name, i) for name in "abc"}, written
        assert interrupted > 100, interrupted
    """)


def test_a_thread_that_does_not_begin(tmp_path, monkeypatch):
    """The error is the caller's, and a later call writes what waits."""
    writer, written = Writer(), []
    monkeypatch.setattr(checkpoints, "write", lambda path, tree: written.append(path))
    with monkeypatch.context() as patch:
        def refused(self):
            raise RuntimeError("can't start new thread")

        patch.setattr("threading.Thread.start", refused)
        with pytest.raises(RuntimeError, match="new thread"):
            writer.put("a", dict)
    writer.drain()
    assert written == ["a"]
