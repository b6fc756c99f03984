"""The gradients of every operation against central differences: python tests/python/gradient_table.py [OPERATION ...]

For each row of test_gradients.py the worst error of the derivative along a random direction, of first and second order,
relative to the size of the gradients, and in which layout of the operands it was.
"""
import sys

import pytest

import test_gradients as rows


def errors(name, layout):
    """Of first and second order; raises where a test would fail."""
    row = rows.Row(name, layout)
    xs = row.arrays()
    first = row.check(row.number, row.gradients(xs))
    with rows.owl.Tape() as tape:
        slope = row.slope(xs)
    return first, row.check(row.slope, tape.gradient(slope, xs, unused="zeros"))


def worst(found):
    """The largest error and where it was for each order, of a dict from layouts to errors."""
    for order in range(2):
        error = max(both[order] for both in found.values())
        layouts = [layout for layout, both in found.items() if both[order] == error]
        yield f"{error:.1e} {'any' if len(layouts) == len(found) else layouts[0]}"


def main():
    print(f"{'operation':18} {'first order':21} {'second order':21} layouts")
    for name in sys.argv[1:] or sorted(rows.ROWS):
        found = {}
        for layout in rows.LAYOUTS:
            try:
                found[layout] = errors(name, layout)
            except pytest.skip.Exception:  # operands of fixed shapes
                continue
        first, second = worst(found)
        print(f"{name:18} {first:21} {second:21} {len(found)}", flush=True)


if __name__ == "__main__":
    main()
