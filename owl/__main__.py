"""``python -m owl``: prints version, folder and devices; ``--cmake-dir`` and others print a folder of its C++ files."""

import argparse
import io
import os
import sys

import owl

# Folders of the C++ files, within the package.
_FOLDERS = {
    "cmake": ("lib", "cmake", "owl"),
    "include": ("include",),
    "lib": ("lib",),
    "pkg_config": ("lib", "pkgconfig"),
}


def print_any_path() -> None:
    """Lets standard output print file names that are not valid text: their bytes pass through unchanged."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line ``arguments`` (those of the process by default) and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m owl", description="Prints owl's version, folder and devices.")
    parser.add_argument("--version", action="version", version=f"owl {owl.__version__}")
    parser.add_argument(
        "--cmake-dir",
        action="store_true",
        help="print the folder of the CMake package, for: cmake -Dowl_DIR=$(python -m owl --cmake-dir)",
    )
    for name, what in (
        ("include", "headers, for g++ -I"),
        ("lib", "libowl, for g++ -L and -Wl,-rpath"),
        ("pkg-config", "owl.pc, for PKG_CONFIG_PATH"),
    ):
        parser.add_argument(f"--{name}-dir", action="store_true", help=f"print the folder of {what}")
    options = parser.parse_args(arguments)
    print_any_path()
    wanted = [name for name in _FOLDERS if getattr(options, f"{name}_dir")]
    if wanted:
        try:
            prefix = os.path.dirname(os.path.dirname(os.path.dirname(owl.get_cmake_dir())))
        except owl.Error as error:
            print(f"python -m owl: {error}", file=sys.stderr)
            return 1
        for name in wanted:
            print(os.path.join(prefix, *_FOLDERS[name]))
        return 0
    print(f"owl {owl.__version__} in {os.path.dirname(owl.__file__)}")
    for device in owl.devices():
        print(f"device {device.id}: {device.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
