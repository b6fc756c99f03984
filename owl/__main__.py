"""``python -m owl``: which owl this is and what it runs on; ``--cmake-dir``: the folder of its CMake package."""

import argparse
import os
import sys

import owl


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line ``arguments`` (those of the process by default) and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m owl", description="Says which owl this is and what it runs on.")
    parser.add_argument("--version", action="version", version=f"owl {owl.__version__}")
    parser.add_argument(
        "--cmake-dir",
        action="store_true",
        help="print the folder of the CMake package, for: cmake -Dowl_DIR=$(python -m owl --cmake-dir)",
    )
    options = parser.parse_args(arguments)
    if options.cmake_dir:
        try:
            print(owl.get_cmake_dir())
        except owl.Error as error:
            print(f"python -m owl: {error}", file=sys.stderr)
            return 1
        return 0
    print(f"owl {owl.__version__} in {os.path.dirname(owl.__file__)}")
    for device in owl.devices():
        print(f"device {device.id}: {device.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
