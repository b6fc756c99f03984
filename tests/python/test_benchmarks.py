"""The benchmarks run and report figures; benchmarks/run.py compares these."""
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

import owl

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
RUNS = {
    "mlp.py": ["--hidden", "16", "--epochs", "1", "--images", "1024"],
    "cnn.py": ["--batches", "2", "--rounds", "1"],
    "ops.py": ["--length", "100", "--rounds", "1"],
    "chain.py": ["--size", "1000", "--rounds", "1"],
    "resnet.py": ["--samples", "1", "--size", "32", "--rounds", "1"],
    "adam.py": ["--units", "5", "--images", "200", "--epochs", "1"],
    "attention.py": ["--features", "8", "--heads", "2", "--steps", "4", "--samples", "3", "--rounds", "1"],
    "layer_norm.py": ["--features", "10", "--vectors", "20", "--rounds", "1"],
    "softmax.py": ["--classes", "10", "--columns", "100", "--rounds", "1"],
    "chains.py": ["--workers", "1", "--length", "3", "--rounds", "1"],
    "updates.py": ["--arrays", "5", "--side", "4", "--steps", "2", "--rounds", "1"],
    "layers.py": ["--units", "8", "--images", "300", "--rounds", "1"],
    "trainer.py": ["--units", "8", "--images", "300", "--rounds", "1"],
    "take.py": ["--rows", "30", "--width", "4", "--rounds", "1"],
    "cliffs.py": ["--only", "1K", "--seconds", "0"],
    "calls.py": ["--elements", "100", "--seconds", "0.01"],
    "memory.py": ["--hidden", "16", "--images", "1024"],
    "planning.py": ["--hidden", "16", "--images", "1024", "--epochs", "1"],
    "loader.py": ["--hidden", "16", "--images", "1024", "--epochs", "1"],
    "import_time.py": ["--runs", "2"],
    "products.py": ["--turns", "1", "--gflop", "0.001"],
}
MODULES = {"run.py", "rows.py", "machine.py", "figure.py", "common.py", "network.py", "tutorial.py"}
FLOORS = {
    "products_floor": ["--hidden", "16", "--images", "512", "--epochs", "1"],
    "conv_floor": ["--images", "2", "--batches", "2", "--rounds", "1"],
}
FAKE_PEER = """
import json, os, sys
assert "OPENBLAS_CORETYPE" not in os.environ and "OPENBLAS_L2_SIZE" not in os.environ
assert int(os.environ["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))
if sys.argv[1] == "jax":
    sys.exit("there is no jax here")
print(json.dumps({"best": 1e6, "accuracy": 0.5}))
"""


def figures(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["best"] > 0
    assert all(math.isfinite(v) for v in result.values() if isinstance(v, float))
    return result


def table(*arguments, **environment):
    inherited = {k: v for k, v in os.environ.items() if k != "OWL_PEERS"}
    command = [sys.executable, FOLDER / "run.py", "--runs", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=inherited | environment)


def rows_of(done):
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    return rows[2:]


def test_every_benchmark_is_run_here():
    assert {p.name for p in FOLDER.glob("*.py")} == {*RUNS, *MODULES, "costs.py", "distributed.py", "scaling.py"}
    assert {p.stem for p in FOLDER.glob("*.cpp")} == {*FLOORS, "wake"}


@pytest.mark.parametrize("script", RUNS)
def test_a_benchmark_reports_one_line_of_json(script):
    assert figures(sys.executable, FOLDER / script, *RUNS[script])["peer"] == "owl"


def test_costs_are_those_of_the_model():
    command = [sys.executable, FOLDER / "costs.py", "--elements", "4000", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"^(k\w+),.* [-\d.]+$", done.stdout, re.MULTILINE)
    model = (ROOT / "cpp/backend/cpu/cost.h").read_text(encoding="utf-8")
    assert len(printed) == 5 and set(printed) <= set(re.findall(r"double (k\w+) =", model))


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_the_ranks_benchmark_tells_of_a_step(network):
    options = ["--unit", "8", "--batch-size", "8", "--steps", "2", "--network", network]
    done = subprocess.run([sys.executable, FOLDER / "distributed.py", *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"1 ranks of \d+ threads: [\d.]+ ms a step", done.stdout)


def test_scaling_is_simulated():
    def rows(*options):
        done = subprocess.run([sys.executable, FOLDER / "scaling.py", *options], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found = re.findall(r"^(\w+), ([\d.]+) Gbit/s, (\w+) +([\d. ]+)  (\d+) ranks$", done.stdout, re.MULTILINE)
        return {each[:3]: [*map(float, each[3].split())] for each in found}

    table = rows("--jitter", "0")
    assert len(table) == 8 and all(len(steps) == 11 for steps in table.values())
    for (name, gigabit, _), steps in table.items():
        transfer = 2 * 8 * {"cnn": 1.72e6, "mlp": 45.55e6}[name] / float(gigabit) / 1e6  # of many ranks, if nothing hides it
        update = {"cnn": 1.2, "mlp": 19.0}[name]  # which the ranks share out
        assert min(steps) >= steps[0] - update and steps[-1] < steps[0] + 1.1 * transfer + 16, (name, steps)
    slow = rows("--jitter", "0", "--network", "mlp", "--gigabit", "1", "--cores", "1000000")
    assert abs(slow["mlp", "1", "direct"][1] - 8 * 45.55) < 8  # two ranks, which compute in no time: the wire's time


@pytest.mark.parametrize("program", FLOORS)
def test_a_floor_reports_one_line_of_json(program):
    if not (BUILD / program).exists():
        pytest.skip(f"{program} is not built (make build)")
    assert figures(BUILD / program, *FLOORS[program])["threads"] == owl.devices()[0].threads


def test_the_cost_of_waking_is_measured():
    if not (BUILD / "wake").exists():
        pytest.skip("wake is not built (make build)")
    done = subprocess.run([BUILD / "wake"], capture_output=True, text=True, timeout=300, check=True)
    assert len(re.findall(r"to wake it +\d+, until it runs +\d+", done.stdout)) == 3


def test_peers_of_calls():
    for work in ("add", "product", "item", "to_numpy", "from_numpy"):
        figures(sys.executable, FOLDER / "peers/calls.py", "numpy", "--work", work, "--elements", "100", "--seconds", "0.01")


PEERS = {
    "layer_norm.py": ["--features", "10", "--vectors", "20", "--rounds", "1"],
    "attention.py": ["--features", "8", "--heads", "2", "--steps", "4", "--rounds", "1"],
    "resnet.py": ["--samples", "1", "--size", "32", "--rounds", "1"],
    "softmax.py": ["--columns", "100", "--rounds", "1"],
}


@pytest.mark.parametrize("script", PEERS)
def test_a_peer_reports_one_line_of_json(script):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    figures(sys.executable, FOLDER / "peers" / script, "torch", *PEERS[script])


def test_single_operations_in_turn_with_a_peer():
    done = subprocess.run([sys.executable, FOLDER / "cliffs.py", "--against", sys.executable, "--turns", "1", "--only", "1K",
                           "--seconds", "0"], capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row[0]: row for row in ([c.strip() for c in line.split("|")[1:-1]] for line in done.stdout.splitlines()) if row}
    for name in ("add 1K", "pow array 1K", "sum all 1K"):
        owls, numpys, ratio = float(rows[name][1]), float(rows[name][3]), float(rows[name][4])
        assert owls > 0 and numpys > 0 and ratio >= 0.99 * owls / numpys
    assert "geometric mean" in done.stdout


def test_table_says_what_was_not_run():
    rows = rows_of(table("--only", "elementwise chain"))
    assert [row[2] for row in rows] == ["jax", "torch"]
    assert all(row[1] and row[3].startswith("not run: no folder of peers") and not row[4] for row in rows)


def test_table_with_peers(tmp_path):
    (tmp_path / "chain.py").write_text(FAKE_PEER)
    output = tmp_path / "results.md"
    done = table("--only", "elementwise chain", "--output", str(output), OWL_PEERS=str(tmp_path),
                 OPENBLAS_CORETYPE="Haswell", OPENBLAS_L2_SIZE="1", OMP_NUM_THREADS="77")  # fmt: skip
    jax, torch = rows_of(done)
    assert jax[3] == "not run: there is no jax here"
    assert torch[2:4] == ["torch", "1e+06"] and torch[4].startswith("**") and torch[6] == "yes"
    assert "unknown environment variable" not in done.stderr
    text = output.read_text(encoding="utf-8")
    assert "--only 'elementwise chain' --peers FOLDER" in text and str(tmp_path) not in text
    assert f"owl {owl.__version__}" in text and "accuracy 0.5" in text
    assert all(line in text for line in done.stdout.splitlines() if line.startswith("| elementwise"))


def test_table_against_own_figures():
    rows = rows_of(table("--only", "memory"))
    assert [row[2] for row in rows] == ["one step's live set", "the layers' outputs for all images"]
    assert all(row[4].startswith("**") for row in rows)


def test_live_set_is_the_widest_point():
    code = (
        "import sys; sys.argv[1:] = ['--hidden', '16', '--images', '1024']\n"
        "from types import SimpleNamespace as Task\n"
        "from memory import live_set\n"
        "task = lambda size, after=(), reuses=None: Task(bytes_written=size, after=list(after), reuses=reuses)\n"
        "assert live_set([task(10)]) == 10\n"
        "assert live_set([task(10), task(1, [0]), task(5, [1])]) == 11\n"
        "assert live_set([task(10), task(10, [0], 0), task(3, [1])]) == 13\n"
        "assert live_set([task(10), task(2), task(3, [0])]) == 15  # no task reads the second: a new weight\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=FOLDER, check=True, capture_output=True, timeout=300)


def test_figure(tmp_path):
    picture = tmp_path / "ratios.png"
    done = table("--only", "memory", "--figure", str(picture))
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        assert done.returncode != 0 and "pip install matplotlib" in done.stderr and "memory" not in done.stdout
    else:
        assert done.returncode == 0, done.stderr
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_gpus_table_runs_on_the_cpu():
    written = (FOLDER / "gpu.md").read_text()
    done = subprocess.run([sys.executable, FOLDER / "gpu" / "run.py", "--device", "cpu", "--tiny", "--runs", "1"],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    for name in ("MLP epoch", "CNN minibatch", "product of two", "elementwise chain", "train_mnist", "first result"):
        assert any(name in row for row in rows), name
    assert (FOLDER / "gpu.md").read_text() == written  # the file is only for a GPU's figures
