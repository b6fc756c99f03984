"""owl.train over the ranks of an MPI job: the same files on any number of them, and each rank's part of the update."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mpi
import owl
from mpi import begin

TRAINING = """\
import sys
import numpy as np
import owl
from owl import distributed, nn, optim, train

mode, out, samples, norm = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "norm"
rng = np.random.default_rng(0)
x = rng.standard_normal((samples, 20)).astype(np.float32)
labels = (x[:, :3].sum(1) > 0).astype(np.int32)
spread = {"shards": 4}
if mode == "ranks":
    spread["distributed"] = True
    distributed.init()
if mode == "devices":
    spread["devices"] = [0] + [owl.create_cpu_device() for _ in range(3)]
owl.seed(5 + (distributed.rank() if mode == "ranks" else 0))   # the others' seeds do not count

def new():
    layers = [nn.Linear(20, 50), *([nn.BatchNorm(50)] if norm else []), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, 2)]
    return train.Trainer(nn.Sequential(*layers), "softmax_cross_entropy", optim.Adam(0.01), **spread)

data = dict(validation=0.1, batch_size=100, progress=False)
own = new()
if len(sys.argv) > 5:
    own.load(sys.argv[5])
own.fit((x, labels), 2, callbacks=[train.CSVLog(out + ".csv"), train.Checkpoint(out + "_{epoch}.npz")], **data)
own.save(out + ".npz")
with open(f"{out}_{distributed.rank() if mode == 'ranks' else 0}.txt", "w") as file:
    print(sorted(own.evaluate((x, labels), 37).items()), own.history["val_loss"], file=file)
"""


def alone(folder, *arguments):
    path = folder / "training.py"
    path.write_text(TRAINING)
    env = {k: v for k, v in os.environ.items() if not k.startswith("OWL_")} | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, path, *map(str, arguments)], env=env, cwd=folder, check=True, timeout=120)


@pytest.mark.parametrize("samples, norm", [(1011, "norm"), (1002, "plain")])  # a last batch of 10 samples, and of 2
def test_files_are_the_same_on_any_number_of_ranks(tmp_path, samples, norm):
    alone(tmp_path, "alone", "alone", samples, norm)
    alone(tmp_path, "devices", "devices", samples, norm)
    names = ["devices"]
    for count, library in ((1, "Open MPI"), (2, "Open MPI"), (4, "Open MPI"), (2, "MPICH"), (4, "MPICH")):
        try:
            names.append(f"{library[:3]}{count}".lower())
            mpi.run(library, count, TRAINING, "ranks", names[-1], samples, norm, folder=tmp_path)
        except pytest.skip.Exception:
            names.pop()
    if len(names) == 1:
        pytest.skip("no MPI library is installed")
    for name in names:
        for file in ("{}.npz", "{}_1.npz", "{}_2.npz"):
            assert (tmp_path / file.format(name)).read_bytes() == (tmp_path / file.format("alone")).read_bytes(), (name, file)
        for rank in range(1 if name == "devices" else int(name[-1])):
            assert (tmp_path / f"{name}_{rank}.txt").read_text() == (tmp_path / "alone_0.txt").read_text()
        assert (tmp_path / f"{name}.csv").exists()


OWN_PARTS = """\
import sys
import numpy as np
import owl
from owl import distributed, nn, optim, train
from owl.train import own_parts

class Shrinking(optim.Optimizer):        # a step that needs all of the gradient
    def step(self, x, g, slots, t, lr):
        return x - g * lr / (owl.sqrt(owl.square(g).sum()) + 1.0)

OPTIMIZERS = {
    "sgd": lambda: optim.SGD(0.1), "adamw": lambda: optim.AdamW(optim.cosine(0.01, 60)),
    "rmsprop": lambda: optim.RMSprop(0.001, momentum=0.9, centered=True), "lion": lambda: optim.Lion(0.001), "own": lambda: Shrinking(0.1),
}
name, out, resumed = sys.argv[1:4]
own_parts.FROM_BYTES = 1000
rng = np.random.default_rng(0)
x = rng.standard_normal((610, 20)).astype(np.float32)
data = (x, (x[:, :3].sum(1) > 0).astype(np.int32))
owl.seed(5)
# Of 1,020, 51, 357 and 7 elements, of 14 and 2: one that 2 and 4 ranks can share, one that they cannot, and small ones.
model = nn.Sequential(nn.Linear(20, 51), nn.ReLU(), nn.Linear(51, 7), nn.Dropout(0.2), nn.Linear(7, 2))
own = train.Trainer(model, "softmax_cross_entropy", OPTIMIZERS[name](), distributed=True, shards=4)
shared = distributed.size() > 1 and name != "own"

class Looks:
    def on_step(self, trainer, step):
        for array in own.optimizer._slots["0.weight"].values():
            assert array.shape == ([1020 // distributed.size()] if shared else [20, 51]), array.shape
        assert all(array.shape == [51, 7] for array in own.optimizer._slots["2.weight"].values())
        assert ("0.weight" in own.parts.own) == shared and "2.weight" not in own.parts.own
    def on_epoch(self, trainer, row):
        own.save(f"{out}_now_{row['epoch']}.npz")

def whole():
    slots = own.optimizer._slots.get("0.weight", {})
    assert all(array.shape == [20, 51] for array in slots.values()), slots

if resumed != "-":
    own.load(resumed)
more = dict(batch_size=100, progress=False, accumulate=2)
own.fit(data, 2, callbacks=[Looks(), train.Checkpoint(out + "_{step}.npz", every=2, unit="step")], **more)
whole()
model.freeze("0")
own.fit(data, 3, **more)
whole()
model.unfreeze()

class Stops:
    def on_step(self, trainer, step):
        raise KeyError("stop")

try:
    own.fit(data, 4, callbacks=[Stops()], **more)    # the optimizer's arrays stay divided
except KeyError:
    pass
own.save(out + "_cut.npz")
own.fit(data, 4, **more)
whole()
own.save(out + ".npz")
print("ended", flush=True)
"""


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop", "lion", "own"])
def test_ranks_update_their_own_parts(tmp_path, optimizer):
    """Of a parameter that they can share, with the files of one process, whatever the optimizer; also beyond a resume on
    another number of ranks from within an epoch, after an exception and with frozen parameters."""
    library = ["Open MPI", "MPICH"][len(optimizer) % 2]
    for count in (1, 2, 4):
        mpi.run(library, count, OWN_PARTS, optimizer, f"n{count}", "-", folder=tmp_path)
    # Four updates an epoch: three of 200 samples, and one of the last ten.
    files = ["_2.npz", "_4.npz", "_6.npz", "_8.npz", "_now_1.npz", "_now_2.npz", "_cut.npz", ".npz"]
    for file in files:
        for count in (2, 4):
            assert (tmp_path / f"n{count}{file}").read_bytes() == (tmp_path / f"n1{file}").read_bytes(), (count, file)
    mpi.run(library, 2, OWN_PARTS, optimizer, "again", "n4_6.npz", folder=tmp_path)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "n1.npz").read_bytes()


PARTS_ELSEWHERE = """\
import functools
import sys
import numpy as np
import owl
from owl import distributed, nn, optim, train
from owl.train import own_parts

what, out = sys.argv[1:3]
own_parts.FROM_BYTES = 64
rng = np.random.default_rng(0)
x = rng.standard_normal((100, 24)).astype(np.float32)
data, more = (x, (x[:, :3].sum(1) > 0).astype(np.int32)), dict(batch_size=8 if what == "devices" else 20, progress=False)
owl.seed(5)

class Does:
    def __init__(self, function, at=3):
        self.function, self.at = function, at
    def on_step(self, trainer, step):
        if step == self.at:
            self.function()

class Normed(optim.Adam):
    @functools.wraps(optim.Adam.step)
    def step(self, x, g, slots, t, lr):
        return optim.Adam.step(self, x, g / (owl.sqrt(owl.square(g).sum()) + 1.0), slots, t, lr)

class Renamed(optim.Adam):
    def state(self):
        return {"p." + name if "." in name else name: value for name, value in super().state().items()}
    def load_state(self, state):
        super().load_state({name.removeprefix("p."): value for name, value in state.items()})

def network():
    return nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 8))

def trainer(model, optimizer, shards=4):
    spread = {"devices": [0, owl.create_cpu_device()]} if what == "devices" else {}
    return train.Trainer(model, "softmax_cross_entropy", optimizer, distributed=True, shards=shards, **spread)

def fails():
    raise KeyError("stop")

class Tied(nn.Module):
    def __init__(self):
        self.a, self.b, self.c = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 2)
        self.b.weight = self.a.weight
    def forward(self, x):
        return self.c(owl.relu(self.b(owl.relu(self.a(x)))))

model, optimizer = (Tied if what == "tied" else network)(), {"wraps": Normed, "state": Renamed}.get(what, optim.Adam)(0.01)
own = trainer(model, optimizer)
if what == "exception":      # the optimizer goes on in another trainer, and its state is whole
    try:
        own.fit(data, 2, callbacks=[Does(fails)], **more)
    except KeyError:
        pass
    assert optimizer.state()["0.weight.exp_avg"].shape == [24, 64]
    own = trainer(model, optimizer)
    own.save(out + "_other.npz")
elif what == "nested":       # another trainer saves while this one's fit runs
    own.fit(data, 1, callbacks=[Does(lambda: trainer(model, optimizer).save(out + "_other.npz"))], **more)
elif what == "layer":        # a smaller head, which the ranks do not share, and another optimizer
    own.fit(data, 1, **more)
    model[2] = nn.Linear(64, 2)
    own.optimizer = optim.Adam(0.01)
elif what == "model":        # a state of another model: half as large as its parameter
    own.fit(data, 1, **more)
    model[0] = nn.Linear(24, 128)
    model[2] = nn.Linear(128, 8)
    try:
        own.fit(data, 2, **more)
        raise SystemExit("it went on")
    except owl.DataError as error:
        assert "'0.weight' has shape [24, 64], the parameter [24, 128]" in str(error), error
    own = trainer(model, optim.Adam(0.01))
elif what == "step":         # whose step is the script's own from here on
    own.fit(data, 1, callbacks=[Does(lambda: setattr(optimizer, "step", functools.partial(Normed.step, optimizer)))], **more)
elif what == "swapped":
    own.fit(data, 1, callbacks=[Does(lambda: setattr(own, "optimizer", optim.Adam(0.02)))], **more)
    assert optimizer.state()["0.weight.exp_avg"].shape == [24, 64]
own.fit(data, len(own.history) + 2, **more)
own.save(out + ".npz")
if what in ("state", "exception"):
    again = trainer(network(), type(optimizer)(0.01))
    again.load(out + ".npz")
    again.fit(data, len(again.history) + 1, **more)
    again.save(out + "_again.npz")
print("ended", flush=True)
"""


@pytest.mark.parametrize("what", ["devices", "exception", "nested", "layer", "model", "wraps", "state", "step", "swapped",
                                  "tied"])
def test_parts_of_ranks_beside_what_scripts_do(launcher, tmp_path, what):
    for count in (1, 2):
        mpi.run(launcher, count, PARTS_ELSEWHERE, what, f"n{count}", folder=tmp_path)
    files = [path.name[2:] for path in tmp_path.glob("n1*")]
    assert ".npz" in files
    for file in files:
        assert (tmp_path / f"n2{file}").read_bytes() == (tmp_path / f"n1{file}").read_bytes(), file


def test_a_sum_that_the_ranks_cannot_share(launcher):
    text = """
        try:
            distributed.reduce_scatter(owl.ones([4, 3]))
        except owl.ShapeError as error:
            print(error)
        try:
            distributed.reduce_scatter(owl.ones([4], dtype="bool"))
        except owl.DTypeError as error:
            print(error)
    """
    out, _ = mpi.run(launcher, 2, begin(text.replace("\n        ", "\n")))
    assert out.count("the last axis of shape [4, 3] has 3 elements, which 2 ranks cannot share") == 2, out
    assert out.count("distributed.reduce_scatter: sums of bool arrays") == 2, out


def test_files_are_the_same_from_ranks_on_several_machines(launcher, tmp_path):
    alone(tmp_path, "alone", "alone", 502, "plain")
    mpi.run(launcher, 2, TRAINING, "ranks", "machines", 502, "plain", folder=tmp_path, rate="1gbit")
    assert (tmp_path / "machines.npz").read_bytes() == (tmp_path / "alone.npz").read_bytes()


def test_more_ranks_than_samples(launcher, tmp_path):
    """Two ranks have none, and all end with the file of one process that has as many shards."""
    text = """
        import sys
        import numpy as np, owl
        from owl import nn, optim, train
        rng = np.random.default_rng(0)
        x, labels = rng.standard_normal((2, 5)).astype(np.float32), np.array([0, 2], np.int32)
        owl.seed(3)
        own = train.Trainer(nn.Linear(5, 3), "softmax_cross_entropy", optim.Adam(0.1), metrics={"accuracy": "accuracy"},
                            distributed=sys.argv[1] == "ranks", shards=4)
        own.fit((x, labels), 3, batch_size=2, progress=False)
        own.save(sys.argv[1] + ".npz")
        print(f"loss {own.evaluate((x, labels))['loss']}", flush=True)
    """
    out, _ = mpi.run(launcher, 4, text, "ranks", folder=tmp_path)
    alone_out, _ = mpi.run(launcher, 1, text, "alone", folder=tmp_path)
    assert out.count(alone_out.strip()) == 4, (out, alone_out)
    assert (tmp_path / "ranks.npz").read_bytes() == (tmp_path / "alone.npz").read_bytes()


def test_a_run_goes_on_with_another_number_of_ranks(launcher, tmp_path):
    mpi.run(launcher, 4, TRAINING, "ranks", "whole", 1002, "plain", folder=tmp_path)
    mpi.run(launcher, 2, TRAINING, "ranks", "again", 1002, "plain", "whole_1.npz", folder=tmp_path)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_buckets():
    from owl.train.ranks import _buckets

    def of(*sizes, shared=()):
        items = [(str(i), owl.ones([n // 4])) for i, n in enumerate(sizes)]
        buckets, last = _buckets(items, shared)
        return [[each.size * 4 for each in bucket.values()] for bucket in (*buckets, last)]

    assert of(1_000_000, 100_000, 20_000_000, 100_000, 80, 2000) == [[1_000_000, 100_000], [20_000_000], [100_000], [80, 2000]]
    assert of(2_000_000, 36, 4096) == [[2_000_000], [36], [4096]]
    assert of(100, 200) == [[100, 200]] and of(5000) == [[5000], []] and of() == [[]]
    assert of(80, 500_000, 12_000, 700_000, 400_000, shared="134") == [[500_000, 700_000], [400_000], [80, 12_000], []]


DIFFERENT = """
from owl import nn, train
x, labels = np.zeros((100 {samples}, 4), np.float32), np.zeros(100 {samples}, np.int32)
own = train.Trainer(nn.Linear(4, 3 {model}), "softmax_cross_entropy", "sgd", distributed=True)
own.fit((x, labels), 1 {epochs}, batch_size=10, progress=False)
"""


@pytest.mark.parametrize("what, message", [
    ("samples", "fit: the ranks differ in samples: 100 on rank 0, 101 on rank 1"),
    ("epochs", "fit: the ranks differ in epochs: 1 on rank 0, 2 on rank 1"),
    ("model", r"rank 0 is at distributed\.broadcast of float32 \[4, 3\] .*; rank 1 is at distributed\.broadcast of float32 \[4, 4\]"),
])  # fmt: skip
def test_ranks_with_other_data_or_models(launcher, what, message):
    text = DIFFERENT.format(**{name: "+ rank" if name == what else "" for name in ("samples", "epochs", "model")})
    _, err = mpi.run(launcher, 2, begin(text), expect=None)
    assert len(re.findall(message, err)) == 2, err


def test_shards_are_ranks_times_a_power_of_two(launcher):
    text = """
        from owl import nn, train
        for shards in (2, 4, 9):
            try:
                train.Trainer(nn.Linear(4, 3), "softmax_cross_entropy", "sgd", distributed=True, shards=shards)
            except ValueError as error:
                print(error)
        print(train.Trainer(nn.Linear(4, 3), "mse", "sgd", distributed=True).parts.shards)
    """
    out, _ = mpi.run(launcher, 3, begin(text.replace("\n        ", "\n")))
    assert out.count("shards must be the number of ranks, 3, and devices, 1, times a power of two, not") == 9
    assert out.count("\n3\n") + out.startswith("3\n") >= 1


def test_a_file_that_rank_0_cannot_write_is_everybodys_error(launcher):
    text = """
        from owl import nn, train
        own = train.Trainer(nn.Linear(4, 3), "softmax_cross_entropy", "sgd", distributed=True)
        try:
            own.save("missing/run.npz")
        except OSError as error:
            print("OSError", error.errno)
    """
    out, _ = mpi.run(launcher, 2, begin(text.replace("\n        ", "\n")))
    assert out.count("OSError 2") == 2


def test_a_program(launcher, tmp_path):
    program = Path(__file__).parents[2] / "apps" / "mnist" / "train_mnist.py"
    text = f"import runpy, sys; sys.path.insert(0, {str(program.parent)!r}); sys.argv[0] = 'train_mnist.py'; runpy.run_path({str(program)!r}, run_name='__main__')"
    for name, count, arguments in (("two", 2, ["--distributed"]), ("one", 1, [])):
        out, _ = mpi.run(launcher, count, text, "--max-steps", 20, "--unit", 16, "--shards", 2, "--out", name, *arguments,
                         folder=tmp_path)  # fmt: skip
        assert out.count("stopped after 20 steps") == 1, out
    assert (tmp_path / "one" / "snapshot.npz").read_bytes() == (tmp_path / "two" / "snapshot.npz").read_bytes()


def test_the_benchmark_behind_a_slow_network(library):
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    benchmark = Path(__file__).parents[2] / "benchmarks" / "distributed.py"
    options = ["--network", "mlp", "--unit", "300", "--batch-size", "10", "--steps", "3", "--overlap", "1", "--gigabit", "0.1"]
    out, _ = mpi.run(library, 2, "import runpy, sys\nrunpy.run_path(sys.argv.pop(1), run_name='__main__')\n", benchmark, *options)
    sums = float(re.search(r"of which they take ([\d.]+) ms", out)[1])
    received = 4 * (784 * 300 + 300 * 300)  # bytes: half of it for the sums, and half of the sums
    assert sums > 0.95 * received / 12.5e6 * 1e3
