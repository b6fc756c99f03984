"""owl.distributed: operations over the ranks of an MPI job, under each library that is installed."""
import os
import re
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
from mpi import begin
from owl import distributed

LIBRARIES = list(mpi.LIBRARIES)


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
