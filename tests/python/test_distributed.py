"""owl.distributed: operations over the ranks of an MPI job, under each library that is installed."""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mpi
import owl
from children import scaled
from conftest import SOAK
from owl import distributed

LIBRARIES = list(mpi.LIBRARIES)
BEGIN = """\
import sys, time
import numpy as np
import owl
from owl import distributed
distributed.init({warn})
rank, size = distributed.rank(), distributed.size()
"""


def begin(text, warn=""):
    return BEGIN.format(warn=warn) + text


@pytest.fixture(params=LIBRARIES)
def library(request):
    mpi.prefix_of(request.param)
    return request.param


@pytest.fixture(params=["Open MPI", "MPICH"])
def launcher(request):
    mpi.prefix_of(request.param)
    return request.param


# ---- alone ------------------------------------------------------------------------------------------------------------


def test_a_process_alone_is_a_group_of_one():
    assert (distributed.rank(), distributed.size()) == (0, 1)
    x = owl.arange(6).reshape([2, 3])
    tree = {"a": x, "b": [x + 1.0, (x,)]}
    for operation in (distributed.all_reduce, distributed.reduce_scatter, distributed.all_gather, distributed.broadcast):
        found = operation(tree)
        assert found["a"] is x and found["b"][1][0] is x and isinstance(found["b"][1], tuple)
    distributed.barrier()


def test_mistakes_are_named():
    x = owl.ones([3])
    with pytest.raises(ValueError, match='op must be "sum", "max" or "min", not \'mean\''):
        distributed.all_reduce(x, "mean")
    with pytest.raises(owl.DTypeError, match="must be an NArray, not ndarray"):
        distributed.all_reduce([x, np.ones(3)])
    with pytest.raises(owl.DTypeError, match="sums of bool"):
        distributed.all_reduce(x > 0.0)
    with pytest.raises(ValueError, match="root 1; the ranks are 0 to 0"):
        distributed.broadcast(x, root=1)


def test_a_script_without_it_pays_nothing():
    code = "import sys, owl; print([name for name in sys.modules if name in ('owl.distributed', 'owl._mpi', 'mpi4py')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["[]"]


def test_a_launcher_without_a_library_is_an_error(tmp_path):
    code = "from owl import distributed; distributed.init()"
    env = os.environ | {"OMPI_COMM_WORLD_SIZE": "2", "OWL_MPI": str(tmp_path / "libmpi.so.40")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Open MPI's mpirun started this process (OMPI_COMM_WORLD_SIZE=2), but there is no MPI library: pip install" in done.stderr


def test_a_library_without_a_launcher_is_a_group_of_one(launcher):
    path = mpi.prefix_of(launcher) / "lib" / mpi.LIBRARIES[launcher]
    code = "from owl import distributed; distributed.init(); print(distributed.rank(), distributed.size())"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"OWL_MPI": str(path)}, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "1"], done.stderr


def test_a_launcher_whose_ranks_have_no_library(launcher, tmp_path):
    """Every rank says so."""
    _, err = mpi.run(launcher, 2, begin(""), env={"OWL_MPI": str(tmp_path / "libmpi.so.40")}, expect=None)
    assert f"{launcher}'s mpirun started this process" in err and "there is no MPI library: pip install" in err


def test_srun_without_mpi_is_an_error():
    code = "from owl import distributed; distributed.init()"
    env = os.environ | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "srun --mpi=pmix" in done.stderr


# ---- values -----------------------------------------------------------------------------------------------------------

VALUES = """
def of(seed, shape, dtype, r):
    rng = np.random.default_rng([seed, r])
    a = rng.standard_normal(shape) * 100
    return a.astype(np.float32) if dtype in ("float16", "bfloat16") else a.astype(dtype)

for shape, dtypes in (((3,), ["float32", "int32", "uint8", "float16"]), ((1200, 70), ["float32", "float64", "int64", "bfloat16"]),
                      ((0,), ["float32"]), ((12, 700), ["float32"])):
    for dtype in dtypes:
        parts = [owl.from_numpy(of(1, shape, dtype, r)).astype(dtype) for r in range(size)]
        own = parts[rank]
        tree = parts
        while len(tree) > 1:
            tree = [a + b for a, b in zip(tree[::2], tree[1::2])] + ([tree[-1]] if len(tree) % 2 else [])
        def same(found, wanted, what):
            assert found.dtype == wanted.dtype and found.shape == wanted.shape, (what, found.shape, wanted.shape)
            a, b = (np.asarray(v.astype("float64") if dtype == "bfloat16" else v) for v in (found, wanted))
            assert a.tobytes() == b.tobytes(), (what, shape, dtype)
        small = owl.full([5], rank + 1, dtype="int32")
        total, count = distributed.all_reduce((own, small))
        same(total, tree[0], "sum")
        assert count.tolist() == [size * (size + 1) // 2] * 5
        largest, smallest = parts[0], parts[0]
        for each in parts[1:]:
            largest, smallest = owl.maximum(largest, each), owl.minimum(smallest, each)
        same(distributed.all_reduce(own, "max"), largest, "max")
        same(distributed.all_reduce(own.T if own.ndim == 2 else own, "min"), smallest.T if own.ndim == 2 else smallest, "min")
        if own.shape[-1] % size == 0:
            share = own.shape[-1] // size
            scattered, counts = distributed.reduce_scatter((own, owl.full([2 * size], rank + 1, dtype="int32")))
            same(scattered, owl.slice(tree[0], -1, rank * share, share), "scatter")
            assert counts.tolist() == [size * (size + 1) // 2] * 2
        same(distributed.all_gather(own), owl.concat(parts, -1), "gather")
        same(distributed.broadcast(own, size - 1), parts[-1], "broadcast")
many = distributed.all_reduce({i: owl.full([20000 + i], float(rank + i)) for i in range(20)})
for i, each in many.items():
    assert each.tolist() == [sum(r + i for r in range(size))] * (20000 + i)
assert distributed.all_reduce(owl.full([2], rank == 0), "max").tolist() == [True, True]
distributed.barrier()
print(f"rank {rank} of {size} is right", flush=True)
"""


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_values(library, count):
    out, _ = mpi.run(library, count, begin(VALUES))
    assert sorted(re.findall(r"rank (\d+) of (\d+) is right", out)) == [(str(r), str(count)) for r in range(count)]


def test_operations_are_recorded_and_never_dropped(launcher):
    out, _ = mpi.run(launcher, 2, begin("""
        begun = time.perf_counter()
        if rank == 1:
            time.sleep(1.5)          # a slow rank
        for step in range(50):
            x = distributed.all_reduce(owl.full([1000], float(step)))   # dropped by the next round
        took = time.perf_counter() - begun
        assert rank == 1 or took < 1.0, took
        assert x.tolist() == [98.0] * 1000
        print("done")
    """.replace("\n        ", "\n")))
    assert out.count("done") == 2


def test_the_link_cuts_no_programs(launcher):
    """While the devices' workers are busy, the idle thread of the link does not plan what the script slowly records."""
    out, _ = mpi.run(launcher, 2, begin("""
        distributed.all_reduce(owl.ones([2])).wait_for_eval()
        a = owl.ones([1500, 1500])
        a.wait_for_eval()
        before = owl.stats()["kernels"]
        busy = [a * a for _ in range(4)]      # some hundred milliseconds of one thread
        x = owl.ones([1000])
        for _ in range(10):
            time.sleep(0.002)
            x = owl.elewise.sin(x + 1.0)
        assert not busy[-1].wait_for_eval(timeout=0) or rank < 0, "the products ended too early"
        x.wait_for_eval()
        count = owl.stats()["kernels"] - before    # four products, ones, and one or two programs
        assert count <= 8, count
        print("few")
    """.replace("\n        ", "\n")))
    assert out.count("few") == 2


def test_large_arrays_are_sent_from_where_they_are(launcher):
    """What a product gives is not copied to a bucket, nor its sum from one; small arrays are copied to one message."""
    out, _ = mpi.run(launcher, 2, begin("""
        w = owl.ones([200, 200])
        w.wait_for_eval()
        for small in (0, 3):
            owl.wait_for_all()
            before = owl.stats()
            bucket = [w * w, (w + 1.0) * w, w * (w - 1.0)] + [owl.ones([50]) for _ in range(small)]
            total = distributed.all_reduce(bucket)
            del bucket
            for each in total:
                each.wait_for_eval()
            copies = owl.stats()["copies"] - before["copies"]
            assert copies == small, (copies, small)
            assert total[0][0, 0].item() == 400.0 and all(each[0].item() == 2.0 for each in total[3:])
        print("right")
    """.replace("\n        ", "\n")))
    assert out.count("right") == 2


def test_gradients(launcher):
    """Those of the sum of all ranks' losses."""
    out, _ = mpi.run(launcher, 2, begin("""
        def gradient(operation, weights):
            w = owl.full([3], 2.0)
            with owl.Tape() as tape:
                loss = owl.mult(operation(w * (rank + 1.0)), weights).sum()
            return tape.gradient(loss, w).tolist()
        each = (rank + 1.0) * owl.arange(3)      # weights that differ: sums are [0, 3, 6]
        assert gradient(distributed.all_reduce, each) == [3.0 * i * (rank + 1) for i in range(3)]
        both = owl.concat([each, each + 10.0], -1)
        wanted = [(3.0 * i + 20 * rank) * (rank + 1) for i in range(3)]
        assert gradient(distributed.all_gather, both) == wanted, wanted
        def scattered(x):
            return distributed.reduce_scatter(owl.concat([x, 10.0 * x], -1))
        wanted = [(rank + 1) * (1.0 * i + 20.0 * i) for i in range(3)]
        assert gradient(scattered, each) == wanted, wanted
        for root in (0, 1):
            wanted = [3.0 * i * (rank + 1) * (rank == root) for i in range(3)]
            assert gradient(lambda x: distributed.broadcast(x, root), each) == wanted, wanted
        w = owl.full([2, 3], 1.0)
        with owl.Tape() as tape:     # errors that are numbers, and parts
            y = distributed.all_reduce(w)
            loss = y.sum() + (2.0 * owl.slice(y, 0, 0, 1)).sum() + (5.0 * owl.slice(y, 0, 1, 1)).sum()
        assert tape.gradient(loss, w).tolist() == [[6.0] * 3, [12.0] * 3]
        with owl.Tape() as tape:
            loss = distributed.broadcast(w, 1).sum()
        assert tape.gradient(loss, w).tolist() == [[2.0 * rank] * 3] * 2
        with owl.Tape() as outer:
            with owl.Tape() as inner:
                y = owl.elewise.square(distributed.all_gather(distributed.reduce_scatter(distributed.all_gather(w)) * 0.5))
                loss = owl.elewise.square(y).sum()  # of all ranks: 2 w^4
            g = inner.gradient(loss, w).sum()
        assert outer.gradient(g, w).tolist() == owl.full([2, 3], 24.0).tolist(), rank
        try:
            with owl.Tape() as tape:
                top = distributed.all_reduce(w, "max").sum()
            tape.gradient(top, w)
        except owl.Error as error:
            print("refused", "max" in str(error) or "all_reduce" in str(error))
    """.replace("\n        ", "\n")))
    assert out.count("refused True") == 2, out


# ---- failures ---------------------------------------------------------------------------------------------------------


def failing(launcher, text, warn="", seconds=60, count=2, **more):
    job = mpi.Job(launcher, count, begin(text.replace("\n        ", "\n"), warn), **more)
    out, err = job.finish(expect=None)
    assert job.seconds < seconds, f"{job.seconds} s\n{err}"
    return out, err


MISMATCHES = {
    "shape": ("x = distributed.all_reduce(owl.ones([3 + rank]))", r"rank 0 is at distributed\.all_reduce of float32 \[3\] .*; rank 1 is at distributed\.all_reduce of float32 \[4\]"),
    "dtype": ("x = distributed.all_reduce(owl.ones([3], dtype='int32' if rank else 'float32'))", r"float32 \[3\].*int32 \[3\]"),
    "number": ("if rank == 0: distributed.all_reduce(owl.ones([9]))\nx = distributed.all_reduce(owl.ones([3]))", r"float32 \[9\] \(user_script\.py:\d+\); rank 1 is at .*float32 \[3\] \(user_script\.py:\d+\)"),
    "skipped, alike": ("if rank == 0: distributed.all_reduce(owl.ones([3]))\nx = distributed.all_reduce(owl.ones([3]))", r"user_script\.py:7\); rank 1 is at .*user_script\.py:8\)"),
    "order": ("x = [distributed.all_reduce(owl.ones([2])), distributed.barrier()][0] if rank else [distributed.barrier(), distributed.all_reduce(owl.ones([2]))][1]", r"rank 0 is at distributed\.barrier.*; rank 1 is at distributed\.all_reduce"),
    "names": ("x = distributed.all_reduce({name: owl.ones([2]) for name in ('ab' if rank else 'ba')})['a']", r"rank 0 is at distributed\.all_reduce of float32 \[2\] and 1 more, 'b', 'a' .*; rank 1 is at .* 'a', 'b' "),
    "op": ("x = distributed.all_reduce(owl.ones([2]), 'max' if rank else 'sum')", r"the ranks do not do the same"),
    "only one": ("if rank == 0: print(distributed.all_reduce(owl.ones([2])))\nelse: time.sleep(0.2)\nx = owl.ones([1])", r"rank 0 is at distributed\.all_reduce of float32 \[2\] \(user_script\.py:7\); rank 1 is at the end of the script"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISMATCHES)
def test_ranks_that_do_not_match(launcher, what):
    text, message = MISMATCHES[what]
    out, err = failing(launcher, text + "\nx.wait_for_eval()\nprint('went on')\n")
    assert "went on" not in out or what == "only one"
    assert re.search(message, err), err
    assert err.count("the ranks do not do the same") >= (1 if what == "only one" else 2), err


def test_different_scripts_are_named(launcher, tmp_path):
    """mpirun -n 2 with a program that runs another file on rank 1."""
    for name in "ab":
        (tmp_path / f"script_{name}.py").write_text(begin("\n\ndistributed.all_reduce(owl.ones([3])).wait_for_eval()\n"))
    text = """
        import os, runpy
        rank = os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK"))
        runpy.run_path(f"script_{'ab'[int(rank)]}.py")
    """
    _, err = mpi.run(launcher, 2, text, folder=tmp_path, expect=None)
    assert err.count("rank 0 is at distributed.all_reduce of float32 [3] (script_a.py:9); rank 1 is at "
                     "distributed.all_reduce of float32 [3] (script_b.py:9)") == 2, err  # fmt: skip


def test_different_versions_are_named(launcher):
    text = """
        import os, owl
        rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")))
        owl.__version__ = "0.9.8" if rank == 1 else "0.9.7"
        from owl import distributed
        distributed.init()
    """
    _, err = mpi.run(launcher, 3, text, expect=None)
    assert "owl.Error: the ranks have different versions of owl: ranks 0 and 2 have 0.9.7; rank 1 has 0.9.8" in err, err


def test_a_barrier_waits_for_what_was_recorded(launcher):
    out, _ = mpi.run(launcher, 2, begin("""
        a = owl.ones([1000, 1000])
        b = a
        for _ in range(5 + 20 * rank):
            b = a * b * 0.001
        distributed.barrier()
        print(b.ready())
        c = owl.take(owl.ones([4]), owl.from_numpy(np.array([9], np.int32)), 0)
        try:
            distributed.barrier()
        except IndexError:
            print("raised")
    """.replace("\n        ", "\n")))
    assert out.count("True") == out.count("raised") == 2


def test_three_of_four_ranks_are_named_together(launcher):
    _, err = failing(launcher, "distributed.all_reduce(owl.ones([3 + (rank == 2)])).wait_for_eval()\n", count=4)
    assert "ranks 0, 1 and 3 are at distributed.all_reduce of float32 [3]" in err
    assert "rank 2 is at distributed.all_reduce of float32 [4]" in err


def test_a_rank_that_raises_ends_all(launcher):
    _, err = failing(launcher, """
        for step in range(1000):
            if rank == 1 and step == 5:
                raise KeyError("no such thing")
            distributed.all_reduce(owl.ones([4])).wait_for_eval()
    """)
    assert "rank 1 failed: KeyError: 'no such thing' (user_script.py:" in err


def test_a_rank_that_raises_while_the_others_compute(launcher):
    _, err = failing(launcher, """
        if rank == 1:
            raise ValueError("too bad")
        time.sleep(60)
    """)
    assert "rank 1 failed, and the others are busy: ending the job: ValueError: too bad (user_script.py:" in err


def test_a_failed_operand_is_everybodys_error(launcher):
    _, err = failing(launcher, """
        index = owl.from_numpy(np.array([9 if rank == 1 else 0], np.int32))
        x = owl.take(owl.ones([4]), index, 0)
        distributed.all_reduce(x).wait_for_eval()
    """)
    assert len(re.findall(r"owl\.(_owl\.)?Error: .*rank 1 failed: .*\(take|rank 1 failed: .*, user_script.py:\d+\)", err)) >= 1, err
    assert "IndexError" in err  # rank 1's own


def test_a_rank_that_runs_out_of_memory_tells_the_others(launcher):
    _, err = failing(launcher, """
        x = owl.ones([400_000])
        x.wait_for_eval()
        if rank == 1:
            owl.set_memory_limit(2_000_000)
        distributed.all_reduce(x).wait_for_eval()
    """)
    # The launcher may mix what the ranks write: the error's kind stands in a piece of its own.
    assert re.search(r"rank 1 failed: .*no memory for 1600000 bytes.*\(distributed\.all_reduce, user_script\.py:12\)", err), err
    assert "owl.OutOfMemoryError: distributed.all_reduce [400000]: no memory" in err  # rank 1's own


FAULTS = ["die", "kill", "raise", "memory", "skip", "shape", "dtype", "slow"]
FAULTY = """
import os, signal
from owl import _owl, nn, optim, train
what, at = sys.argv[1], int(sys.argv[2])
if len(sys.argv) > 3:
    train.ranks.FIRST_BUCKET = train.ranks.BUCKET = train.own_parts.FROM_BYTES = int(sys.argv[3])
calls = 0

def faulty(call):
    def run(arrays, *more):
        global calls
        calls += 1
        if calls != at:
            return call(arrays, *more)
        print("fault", flush=True)
        if what == "die":
            os._exit(3)
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "raise":
            raise RuntimeError("an injected fault")
        if what == "memory":
            owl.set_memory_limit(1)
        if what == "skip":
            return arrays
        if what == "slow":
            time.sleep(1)
        if what == "shape":
            arrays = [owl.concat([each, each], -1) for each in arrays]
        if what == "dtype":
            arrays = [each.astype("float64" if each.dtype != "float64" else "float32") for each in arrays]
        return call(arrays, *more)
    return run

model = nn.Sequential(nn.Linear(10, 200), nn.BatchNorm(200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 3))
trainer = train.Trainer(model, "softmax_cross_entropy", optim.Adam(), distributed=True)
if rank == size - 1:
    for name in ("all_reduce", "reduce_scatter", "all_gather", "broadcast"):
        setattr(_owl._distributed, name, faulty(getattr(_owl._distributed, name)))
x = np.random.default_rng(0).standard_normal((200, 10)).astype(np.float32)
trainer.fit((x, np.arange(200, dtype=np.int32) % 3), 3, validation=0.2, batch_size=20, progress=False)
print("ended", flush=True)
"""


@pytest.mark.parametrize("seed", range(scaled(4, 200)))
def test_injected_faults(seed):
    """At any operation of a training run; the job ends within seconds of it, and a slow rank harms nothing."""
    rng = np.random.default_rng(seed)
    what = FAULTS[seed % len(FAULTS)] if SOAK > 1 else str(rng.choice(FAULTS))
    at, count, library = int(rng.integers(1, 50)), int(rng.integers(2, 4)), str(rng.choice(["Open MPI", "MPICH"]))
    job = mpi.Job(library, count, begin(FAULTY), what, at)
    while "fault" not in (line := job.process.stdout.readline()):
        assert line, job.finish()
    begun = time.monotonic()
    out, err = job.finish(expect=0 if what == "slow" else None, timeout=60)
    seconds = time.monotonic() - begun
    if what in ("shape", "dtype"):
        assert "the ranks do not do the same" in err, (what, at, err)
    elif what == "skip":  # the script may fail first: what it did not gather has another shape
        assert re.search(r"the ranks do not do the same|rank \d failed", err), (what, at, err)
    elif what in ("raise", "memory"):
        assert re.search(r"rank \d failed", err), (what, at, err)
    assert what == "slow" or out.count("ended") < count, (what, at, out, err)
    print(f"{what} at operation {at} of {count} ranks under {library}: {seconds:.1f} s")


@pytest.mark.parametrize("at", range(12, 19))
def test_a_rank_that_dies_at_any_operation_of_a_step(at):
    """Buckets of 1 kB: a step has a handful of operations."""
    library = ["Open MPI", "MPICH"][at % 2]
    job = mpi.Job(library, 2, begin(FAULTY), "kill", at, 1000)
    while "fault" not in (line := job.process.stdout.readline()):
        assert line, job.finish()
    begun = time.monotonic()
    out, _ = job.finish(expect=None, timeout=60)
    assert time.monotonic() - begun < 15 and "ended" not in out


@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_rank_that_dies_ends_the_others(launcher, how):
    failing(launcher, f"""
        import os, signal
        for step in range(100000):
            if rank == 1 and step == 20:
                {how}
            distributed.all_reduce(owl.ones([4])).wait_for_eval()
    """)


def test_a_slow_rank_gets_a_warning(launcher):
    out, err = mpi.run(launcher, 3, begin("""
        distributed.all_reduce(owl.ones([2])).wait_for_eval()
        if rank == 1:
            time.sleep(1.5)
        print(distributed.all_reduce(owl.ones([4])).tolist())
    """.replace("\n        ", "\n"), warn="warn_after=0.4"))
    assert out.count("[3.0, 3.0, 3.0, 3.0]") == 3
    lines = [line for line in err.splitlines() if "has waited" in line]
    assert re.search(r"rank 0 has waited 0\.4 s in no\. 2, distributed\.all_reduce of float32 \[4\] \(user_script\.py:11\), for rank 1; "
                     r"rank 1 was last at no\. 1, distributed\.all_reduce of float32 \[2\]", lines[0]), err


def test_ctrl_c_ends_all(launcher):
    job = mpi.Job(launcher, 2, begin("""
        print("begun", flush=True)
        while True:
            distributed.all_reduce(owl.ones([4])).wait_for_eval()
    """.replace("\n        ", "\n")))
    said = ""
    while said.count("begun") < 2:  # the launcher may mix the ranks' lines
        said += (line := job.process.stdout.readline())
        assert line, said
    job.process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    job.finish(expect=None, timeout=30)
    assert time.monotonic() - begun < 10


def test_launcher_and_library_that_do_not_belong_together():
    ours, other = mpi.prefix_of("MPICH"), mpi.prefix_of("Open MPI")
    for launcher, prefix, file in (("Open MPI", ours, "libmpi.so.12"), ("MPICH", other, "libmpi.so.40")):
        job = mpi.Job(launcher, 2, begin(""), env={"OWL_MPI": str(prefix / "lib" / file)})
        _, err = job.finish(expect=None)
        assert "the launcher and MPI's library do not belong together" in err
        assert f"{launcher}'s mpirun started 2 processes" in err and str(Path(prefix) / "lib" / file) in err


def test_the_library_is_found_beside_mpirun(launcher):
    prefix = mpi.prefix_of(launcher)
    out, _ = mpi.run(launcher, 2, begin("print(distributed.all_reduce(owl.ones([1])).tolist())"),
                     env={"OWL_MPI": "", "PATH": f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}"})
    assert out.count("[2.0]") == 2


# ---- several machines -------------------------------------------------------------------------------------------------


def test_ranks_on_machines_of_their_own(launcher):
    """In namespaces, over cables of 100 Mbit/s: 4 MB take 2 MB in each direction, twice."""
    out, _ = mpi.run(launcher, 3, begin("""
        import socket
        x = owl.full([1_000_000], 1.0 + rank)
        x.wait_for_eval()
        distributed.barrier()
        begun = time.perf_counter()
        total = distributed.all_reduce(x)
        assert total.min().tolist() == total.max().tolist() == [6.0]
        seconds = time.perf_counter() - begun
        assert seconds > 0.3, seconds
        print(socket.gethostname(), flush=True)
    """.replace("\n        ", "\n")), rate="100mbit")
    assert sorted(out.split()) == ["machine1", "machine2", "machine3"]


def test_a_rank_that_dies_on_another_machine_ends_the_others(launcher):
    failing(launcher, """
        import os, signal
        for step in range(100000):
            if rank == 1 and step == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            distributed.all_reduce(owl.ones([4])).wait_for_eval()
    """, rate="")


# ---- Trainer ----------------------------------------------------------------------------------------------------------

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
