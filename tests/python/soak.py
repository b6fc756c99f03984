"""Thousands of random programs (`make soak`): windows, waits and timing never change a bit.

Program number i depends on i and the seed alone: `soak.py --seed S --first i --programs 1` runs one again.
"""
import argparse
import faulthandler
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import owl  # noqa: E402
import programs  # noqa: E402
from conftest import DEFAULT_DEVICE, same_bits, window  # noqa: E402

HANG_S = 300  # for one program


def outcome(seed, i, devices):
    """None if program i gives the same bits in every way of running it, else a description of the difference."""
    rng = random.Random(f"{seed} {i}")
    program = programs.random_program(rng)
    shapes = programs.LARGE if rng.random() < 0.1 else programs.SHAPES
    options = dict(seed=i, shapes=shapes, devices=devices, rough=True)
    with window(1, -1):
        want = programs.evaluate(program, waits=3, **options)
    ways = [(rng.choice([1, 2, 3, 7, 64, 1 << 30]), rng.choice([-1, 0, 100]), rng.randrange(4)) for _ in range(3)]
    for count, idle_us, waits in ways:
        with window(count, idle_us):
            got = programs.evaluate(program, waits=waits, **options)
        for k, (a, b) in enumerate(zip(got, want, strict=True)):
            if not same_bits(a, b):
                return f"value {k} with window {count}, idle {idle_us} us, waits {waits}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (0)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="of all (another each time)")
    args = parser.parse_args()
    print(f"seed {args.seed}: {args.programs} programs", flush=True)
    devices = (DEFAULT_DEVICE, owl.create_cpu_device(), owl.create_cpu_device())
    owl.set_device(DEFAULT_DEVICE)
    failed, start = [], time.monotonic()
    for n, i in enumerate(range(args.first, args.first + args.programs), 1):
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        wrong = outcome(args.seed, i, devices)
        if wrong:
            failed.append(i)
            print(f"FAILED: program {i} of seed {args.seed}: {wrong}", flush=True)
        if n % max(1, args.programs // 20) == 0:
            print(f"{n} of {args.programs}, {len(failed)} failed, {time.monotonic() - start:.0f} s", flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(f"random programs: seed {args.seed}, tried {args.programs}, failed {len(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
