"""The command line of the MNIST programs. options.cpp does the same for the C++ programs: change both."""

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

EXIT_FAILED, EXIT_WRONG_OPTIONS = 1, 2
EXIT_INTERRUPTED = 130  # what shells report for SIGINT

LARGEST_INT, LARGEST_SEED, LARGEST_GPU = 2**63 - 1, 2**64 - 1, 2**31 - 1


class RunError(Exception):
    """Ends the program with one line on stderr."""


class _WrongValueError(Exception):
    """The expected value of an option."""


class _Option(NamedTuple):
    name: str
    placeholder: str | None  # without one the option takes no value
    help: str
    parse: Callable
    default: object = None


def parse_options(arguments, description, *, epochs, batch_size, lr, momentum, weight_decay, hidden=None):
    """The options in `arguments` (by default the process's), with a program's own defaults.

    `hidden` is the default of an option that only programs with a hidden layer have. The result has an attribute for
    each option, `program`, and `given`, the names of the options on the command line. --help ends the process with exit
    code 0, a wrong option with 2.
    """
    table = _table(epochs, batch_size, lr, momentum, weight_decay, hidden)
    found = SimpleNamespace(program=os.path.basename(sys.argv[0]), given=set())
    for option in table:
        if option.name != "help":
            setattr(found, _attribute(option), option.default)
    left = list(sys.argv[1:] if arguments is None else arguments)
    while left:
        argument = left.pop(0)
        if argument == "--" and not left:
            break
        option, value = _find(argument, table, left, found)
        if option.name == "help":
            _print_help(found, description, table)
        try:
            setattr(found, _attribute(option), option.parse(value))
        except _WrongValueError as wrong:
            refuse_options(found, f"argument --{option.name}: expected {wrong}, not '{value}'")
        found.given.add(option.name)
    return found


def refuse_options(options, message):
    """Ends the process as for a wrong option: usage and message on stderr, exit code 2."""
    print(f"{_usage(options)}\n{options.program}: error: {message}", file=sys.stderr)
    sys.exit(EXIT_WRONG_OPTIONS)


def say(text):
    """Prints to standard output. RunError: it cannot be written."""
    try:
        print(text, flush=True)
    except OSError as error:
        # The unwritten text stays in the buffer; at the interpreter's exit it would fail again, with exit code 120.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise RunError(f"standard output: {error.strerror}") from None


# ---- The table ------------------------------------------------------------------------------------------------------


def _table(epochs, batch_size, lr, momentum, weight_decay, hidden):
    table = [
        _Option("help", None, "show this help and exit", bool),
        _Option("data", "PATH", "folder with MNIST (IDX files, mnist.npz or mnist_all.mat), or a .npz or .mat file", str),
        _Option("epochs", "N", f"(default: {epochs})", _integer(1), epochs),
        _Option("batch-size", "N", f"images per step (default: {batch_size})", _integer(1), batch_size),
        _Option("lr", "X", f"peak learning rate, reached after 40 % of the run, 0 at its ends (default: {lr:g})",
                _number("above 0", lambda v: v > 0), lr),
        _Option("momentum", "X", f"(default: {momentum:g})", _number("at least 0 and below 1", lambda v: 0 <= v < 1),
                momentum),
        _Option("weight-decay", "X", f"L2 penalty on the weights, not the biases (default: {weight_decay:g})",
                _number("at least 0", lambda v: v >= 0), weight_decay),
        _Option("device", "D", "cpu, gpu, gpu:N or auto: the first GPU where there is one, else the CPU (default: auto)",
                _device_name, "auto"),
        _Option("num-gpus", "N", "share every minibatch among the first N GPUs", _integer(1)),
        _Option("seed", "N", "of weights and shuffling (default: 1)", _integer(0, LARGEST_SEED), 1),
        _Option("max-steps", "N", "stop after N steps in all", _integer(1)),
        _Option("log", "FILE", "write a line for each step: its number, a space, its mean loss", str),
        _Option("quiet", None, "print the closing table only", lambda value: True, False),
    ]  # fmt: skip
    if hidden is not None:
        table.append(_Option("hidden", "N", f"units of the hidden layer (default: {hidden})", _integer(1), hidden))
    return table


def _integer(least, largest=LARGEST_INT):
    def parse(text):
        if re.fullmatch(r"[+-]?[0-9]+", text):
            if int(text) > largest:
                raise _WrongValueError(f"an integer of at most {largest}")
            if int(text) >= least:
                return int(text)
        raise _WrongValueError(f"an integer of at least {least}")

    return parse


def _number(limits, allowed):
    def parse(text):
        if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
            value = float(text)
            if math.isfinite(value) and allowed(value):
                return value
        raise _WrongValueError(f"a number {limits}")

    return parse


def _device_name(text):
    index = re.fullmatch(r"gpu:([0-9]+)", text)
    if text in ("auto", "cpu", "gpu") or (index and int(index[1]) <= LARGEST_GPU):
        return text
    raise _WrongValueError("cpu, gpu, gpu:N or auto")


# ---- Parsing and --help ---------------------------------------------------------------------------------------------


def _find(argument, table, left, options):
    """The option that an argument names, and its value, which may be the first of the arguments `left`."""
    matches = []
    if argument == "-h":
        argument = "--help"
    if argument == "--":  # no options follow
        argument = left[0]
    elif argument.startswith("--"):
        name, equals, value = argument[2:].partition("=")
        matches = [option for option in table if option.name == name]
        matches = matches or [option for option in table if option.name.startswith(name)]
    if not matches:
        refuse_options(options, f"unrecognized arguments: {argument}")
    if len(matches) > 1:
        names = ", ".join(f"--{option.name}" for option in matches)
        refuse_options(options, f"ambiguous option: {argument} could match {names}")
    (option,) = matches
    if option.placeholder is None:
        if equals:
            refuse_options(options, f"argument --{option.name}: takes no value")
        return option, None
    if not equals:
        if not left:
            refuse_options(options, f"argument --{option.name}: expected one argument")
        value = left.pop(0)
    return option, value


def _attribute(option):
    return option.name.replace("-", "_")


def _usage(options):
    return f"usage: {options.program} [--help] [options]"


def _print_help(options, description, table):
    lines = [_usage(options), "", description, "", "options:"]
    for option in table:
        left = ("-h, " if option.name == "help" else "") + " ".join(filter(None, (f"--{option.name}", option.placeholder)))
        lines.append(f"  {left:<21} {option.help}")
    lines += [
        "",
        "Without --data: the folder in OWL_DATA, the working folder, the user's cache; otherwise MNIST is downloaded into",
        "the cache, and where no mirror answers, synthetic digits are drawn. Ctrl-C ends the run with the table of what was",
        "reached (exit code 130).",
    ]
    try:
        say("\n".join(lines))
    except RunError as error:
        print(f"{options.program}: error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    sys.exit(0)
