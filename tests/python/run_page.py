"""Runs the blocks of a page in one namespace, for test_docs.py: JSON steps on stdin, JSON results on stdout.

A step is {"kind": "python", "code"}, {"kind": "file", "name", "code"}, {"kind": "command", "code"} or {"kind": "rows",
"rows"}, pairs of equivalent NumPy and owl expressions, or {"kind": "cells", "rows"}, code that runs. The result is the step's
output; for rows, those that differ, for cells those that fail.
Python code is `example.py` in errors, its lines counted from the block's start.
"""

import contextlib
import io
import json
import linecache
import subprocess
import sys
import traceback
from pathlib import Path


def run_python(code, namespace):
    printed = io.StringIO()
    linecache.cache["example.py"] = (len(code), None, code.splitlines(True), "example.py")
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(code, "example.py", "exec"), namespace)
        except Exception as error:
            printed.write("".join(traceback.format_exception_only(error)))
            return printed.getvalue(), traceback.format_exc()
    return printed.getvalue(), None


def run_command(code):
    done = subprocess.run(["bash", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=150)  # fmt: skip
    return done.stdout, None if done.returncode == 0 else f"exit status {done.returncode}: {code}\n{done.stdout}"


def compare(numpy_code, owl_code, namespace):
    """Nothing, or the difference of the two expressions. An owl array is compared by its to_numpy()."""
    import numpy as np

    expected, found = eval(numpy_code, namespace), eval(owl_code, namespace)
    expected, found = np.asarray(expected), np.asarray(found)
    if expected.shape != found.shape:
        return f"{numpy_code} has shape {expected.shape}, {owl_code} {found.shape}"
    if not np.allclose(expected, found, rtol=1e-4, atol=1e-5):
        return f"{numpy_code} is {expected}, {owl_code} is {found}"
    return None


def run_cell(code, namespace):
    """Nothing, or the code and its error."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            exec(compile(code, "example.py", "exec"), namespace)
            owl = namespace.get("owl")
            if owl is not None:
                owl.wait_for_all()
        except Exception as error:
            return f"{code}: {type(error).__name__}: {error}"
    return None


def main():
    namespace = {"__name__": "__main__"}
    results = []
    for step in json.load(sys.stdin):
        printed, error = "", None
        if step["kind"] == "python":
            printed, error = run_python(step["code"], namespace)
        elif step["kind"] == "file":
            Path(step["name"]).write_text(step["code"], encoding="utf-8")
        elif step["kind"] == "command":
            printed, error = run_command(step["code"])
        elif step["kind"] == "cells":
            failures = [run_cell(code, namespace) for code in step["rows"]]
            error = "\n".join(each for each in failures if each) or None
        else:
            differences = [compare(*row, namespace) for row in step["rows"]]
            error = "\n".join(each for each in differences if each) or None
        results.append([printed, error])
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
