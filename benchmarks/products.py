"""The cost of owl's tiling of matrix products: the ratio for each of several shapes.

owl cuts a product into tiles by its sizes alone and calls oneDNN on one thread for each, so that bits do not depend on
the number of threads. This script computes the same products by owl, and by oneDNN's own threaded sgemm in a bare loop,
in turn. Ratios are of the best times. It is not in the table of rows.py, which has the epoch's products by
products_floor.cpp.
"""
import ctypes
import glob
import os
import sys
import time

import numpy as np

import owl
from common import arguments, report

A = arguments(__doc__, turns=5, gflop=0.2)
THREADS = owl.devices()[0].threads
library = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(owl.__file__), "lib", "libdnnl.so*"))[0])
ctypes.CDLL("libgomp.so.1").omp_set_num_threads(THREADS)
Pointer = ctypes.POINTER(ctypes.c_float)
dim = ctypes.c_int64
library.dnnl_sgemm.argtypes = [ctypes.c_char, ctypes.c_char, dim, dim, dim, ctypes.c_float, Pointer, dim, Pointer, dim,
                               ctypes.c_float, Pointer, dim]

# [m, k] x [k, n], as owl writes them; a and b transposed if the network reads them transposed.
SHAPES = {
    "MLP forward 256x784x256": (256, 784, 256, False, False),
    "MLP gradient 256x256x784": (256, 256, 784, False, True),
    "MLP output 10x256x256": (10, 256, 256, False, False),
    "MLP back 256x10x256": (256, 10, 256, True, False),
    "MLP output gradient 10x256x256": (10, 256, 256, False, True),
    "1000x1000x1000": (1000, 1000, 1000, False, False),
    "3000x784x256": (3000, 784, 256, False, False),
    "64x4096x64": (64, 4096, 64, False, False),
    # Columns 4 KiB apart.
    "1024x1024x1024": (1024, 1024, 1024, False, False),
    "1024x1024x1024, right transposed": (1024, 1024, 1024, False, True),
}


def best(f, repeat=15, number=1):
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        for _ in range(number):
            f()
        times.append((time.perf_counter() - start) / number)
    return min(times)


def bare(m, k, n, ta, tb):
    """The product in column-major memory is b'a' in the library's row-major terms."""
    a, b, c = (np.random.default_rng(0).standard_normal(s, dtype="f4") for s in (m * k, k * n, m * n))
    p = [x.ctypes.data_as(Pointer) for x in (b, a, c)]
    keep = (a, b, c)
    arguments = (b"T" if tb else b"N", b"T" if ta else b"N", n, m, k, 1.0, p[0], k if not tb else n, p[1],
                 m if not ta else k, 0.0, p[2], m)  # fmt: skip
    return lambda: (library.dnnl_sgemm(*arguments), keep)[0]


def main():
    ratios = {}
    for name, (m, k, n, ta, tb) in SHAPES.items():
        a = owl.randn([k, m] if ta else [m, k])
        b = owl.randn([n, k] if tb else [k, n])
        owl.wait_for_all()
        number = max(1, int(A.gflop * 1e9 / (2 * m * k * n)))  # products in a measurement

        def ours():
            results = [(a.trans() if ta else a) * (b.trans() if tb else b) for _ in range(number)]
            owl.wait_for_all()
            return results

        theirs = bare(m, k, n, ta, tb)
        pairs = [(best(ours, 5) / number, best(theirs, 5, number)) for _ in range(A.turns)]
        own, library_time = min(p[0] for p in pairs), min(p[1] for p in pairs)
        gflops = 2 * m * k * n / own / 1e9
        ratios[name.split()[-1]] = own / library_time
        print(f"# {name}: owl {own * 1e6:.1f} us ({gflops:.0f} GFLOP/s), bare {library_time * 1e6:.1f} us, "
              f"ratio {own / library_time:.3f}", file=sys.stderr)
    report("products-owl-by-bare", list(ratios.values()), **ratios)


if __name__ == "__main__":
    main()
