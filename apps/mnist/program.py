"""Shared by the programs over owl.nn and owl.train: options, devices, plots, errors and Ctrl-C."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import owl
from options import EXIT_FAILED, EXIT_INTERRUPTED, RunError, say as say_here
from owl import distributed


def parser(description, *, epochs, batch_size, out):
    """A command line with the options that all these programs have."""
    found = argparse.ArgumentParser(description=description, epilog="Without --data: the folder in OWL_DATA, the working "
                                    "folder, the user's cache; otherwise MNIST is downloaded into the cache, and where no "
                                    "mirror answers, synthetic digits are drawn. Ctrl-C ends the run with what was reached "
                                    "(exit code 130).")  # fmt: skip
    found.add_argument("--data", metavar="PATH",
                       help="folder with MNIST (IDX files, mnist.npz or mnist_all.mat), or a .npz or .mat file")  # fmt: skip
    found.add_argument("--epoch", "--epochs", type=at_least(1), default=epochs, metavar="N", help="(default: %(default)s)")
    found.add_argument("--batchsize", "--batch-size", type=at_least(1), default=batch_size, metavar="N",
                       help="images per step (default: %(default)s)")  # fmt: skip
    found.add_argument("--gpu", type=at_least(-1), default=-1, metavar="N", help="which GPU; -1 is the CPU (default: -1)")
    found.add_argument("--out", type=Path, default=Path(out), metavar="FOLDER",
                       help="where files are written; made if it is missing (default: %(default)s)")  # fmt: skip
    found.add_argument("--seed", type=at_least(0), default=1, metavar="N",
                       help="of weights, dropout and shuffling (default: 1)")  # fmt: skip
    found.add_argument("--max-steps", type=at_least(1), metavar="N", help="stop the training after N steps in all")
    found.add_argument("--distributed", action="store_true", help="spread each batch over the processes that mpirun started")
    found.add_argument("--shards", type=at_least(1), metavar="N",
                       help="parts of a batch, which decide the bits (default: one a process)")  # fmt: skip
    return found


def at_least(least):
    """Parses an integer that is not below `least`."""

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, not '{text}'")
        return value

    return parse


def spread(options):
    """Trainer's arguments that spread a batch."""
    return {"distributed": options.distributed, "shards": options.shards}


def writes():
    """Whether this process writes files and prints: alone, or the first of an MPI job."""
    return not distributed.is_initialized() or distributed.rank() == 0


def say(text):
    """Prints, once in an MPI job."""
    if writes():
        say_here(text)


def run(program, found, arguments):
    """Runs `program(options)` on its device; gives the exit code. What ends it is one line, without a traceback."""
    options = found.parse_args(arguments)
    try:
        if options.distributed:
            distributed.init()
        with owl.device(0 if options.gpu < 0 else owl.create_gpu_device(options.gpu)):
            owl.seed(options.seed)
            options.out.mkdir(parents=True, exist_ok=True)
            return program(options) or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        distributed.fail("interrupted")
        return EXIT_INTERRUPTED
    except (owl.Error, RunError, MemoryError, ImportError, OSError) as error:
        print(f"{found.prog}: error: {error}", file=sys.stderr)
        distributed.fail(error)
        return EXIT_FAILED


class StopAfter:
    """A callback that ends the training after so many steps; without a number it never does."""

    def __init__(self, steps):
        self.steps = steps

    def on_step(self, trainer, step):
        if self.steps is not None and step >= self.steps:
            trainer.stop()


def bar(steps, text):
    """The steps, with a progress bar on a terminal where tqdm is installed."""
    if not sys.stderr.isatty() or importlib.util.find_spec("tqdm") is None:
        return steps
    return importlib.import_module("tqdm").tqdm(steps, desc=text, leave=False)


def picture(path, draw):
    """Calls `draw`, which needs matplotlib, for the picture at `path`; a run whose picture is missing is still a run."""
    if not writes():
        return
    try:
        draw()
    except ImportError:
        say(f"{os.fspath(path)} is not drawn: plots need matplotlib, pip install matplotlib")
    else:
        say(f"{os.fspath(path)} is drawn")
