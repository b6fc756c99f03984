"""The benchmarks run and report; what they report is for benchmarks/run.py to compare."""
import json
import math
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
RUNS = {
    "mlp.py": ["--hidden", "16", "--epochs", "1"],
    "cnn.py": ["--batches", "2", "--rounds", "1"],
    "ops.py": ["--length", "100", "--rounds", "1"],
    "chain.py": ["--size", "1000", "--rounds", "1"],
    "import_time.py": ["--runs", "2"],
    "products.py": ["--turns", "1", "--steps", "1", "--gflop", "0.001"],
}


def test_every_benchmark_is_run_here():
    assert {p.name for p in FOLDER.glob("*.py")} == {*RUNS, "run.py", "common.py"}


@pytest.mark.parametrize("script", RUNS)
def test_a_benchmark_reports_one_line_of_json(script):
    done = subprocess.run([sys.executable, FOLDER / script, *RUNS[script]], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["peer"] == "owl" and result["best"] > 0
    assert all(math.isfinite(v) for v in result.values() if isinstance(v, float))


def test_the_table_of_own_figures():
    env = {k: v for k, v in os.environ.items() if k != "OWL_PEERS"}
    done = subprocess.run([sys.executable, FOLDER / "run.py", "--runs", "1", "--only", "chain"], capture_output=True,
                          text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    assert "| elementwise chain, 4M floats, ms |" in done.stdout
