"""Seconds from starting Python to the first value from the card, in fresh processes one after the other."""
import subprocess
import sys

from shared import options, report, timed

A = options(__doc__, runs=4)
DEVICE = "owl.create_gpu_device(0)" if A.device == "gpu" else "0"
SCRIPT = f"import owl; owl.set_device({DEVICE}); x = owl.randn([1000, 1000]); print(float((x * x + 1.0).sum()))"

seconds = [timed(lambda: subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True))
           for _ in range(A.runs)]  # fmt: skip
report("first-result", "owl", seconds, very_first=seconds[0], worst=max(seconds))
