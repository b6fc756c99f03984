"""The C++ MNIST programs as a user runs them, compared with the Python ones: options, data, devices, errors, Ctrl-C."""

import functools
import gzip
import importlib
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import owl
from conftest import run_on_terminal

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("mnist_mlp", "mnist_cnn", "mnist_cnn_2gpu")  # each with a Python program of the same options
ALL_PROGRAMS = (*PROGRAMS, "mnist_tape")
TRAIN, TEST = 5200, 400  # 21 minibatches of 256
PATIENCE = 150  # seconds until a program counts as hung; no test measures speed
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@functools.cache
def binary(program):
    """The path of a program: OWL_CPP_APPS names their folder, else the build folder is searched."""
    folders = [Path(os.environ["OWL_CPP_APPS"])] if os.environ.get("OWL_CPP_APPS") else [ROOT / "build"]
    for folder in folders:
        for path in (folder / program, *sorted(folder.rglob(program))):
            if path.is_file() and os.access(path, os.X_OK):
                return path
    pytest.skip(f"the C++ program {program} was not built (looked in {', '.join(map(str, folders))})")


def write_idx(path, array):
    """Writes a uint8 array as an IDX file, packed if the name ends in .gz."""
    content = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(content)


def write_digits(folder, images, labels, train, ending=""):
    folder.mkdir(exist_ok=True)
    for name, array in zip(FILES, (images[:train], labels[:train], images[train:], labels[train:])):
        write_idx(folder / (name + ending), array)
    return folder


@pytest.fixture(scope="module")
def digits():
    return owl._owl.make_digits(5, TRAIN + TEST)


@pytest.fixture(scope="module")
def data(digits, tmp_path_factory):
    """A folder with a small set of digits in IDX files."""
    return write_digits(tmp_path_factory.mktemp("cpp") / "digits", *digits, TRAIN)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A folder with enough digits for a single step."""
    return write_digits(tmp_path_factory.mktemp("cpp") / "few", *owl._owl.make_digits(6, 30), 20)


def environment(**more):
    """This process's environment without its data and settings, and with an empty cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OWL_")}
    return {**kept, "XDG_CACHE_HOME": "/nonexistent", **more}


def run(program, *options, cwd=None, **more):
    return subprocess.run([binary(program), *map(str, options)], env=environment(**more), capture_output=True,
                          text=True, timeout=PATIENCE, cwd=cwd)  # fmt: skip


def succeed(program, *options, **more):
    if program == "mnist_cnn_2gpu":
        more.setdefault("OWL_SIMULATED_GPUS", "2")
    done = run(program, *options, **more)
    assert done.returncode == 0, done.stderr
    return done


def refused(program, *options, **more):
    """A run that fails with valid options: the message, without the program's name."""
    done = run(program, *options, **more)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{program}: error: ")
    return line.removeprefix(f"{program}: error: ")


def table_of(stdout):
    """The rows of the closing table, split at blanks, without its header."""
    lines = stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split() == ["epoch", "loss", "test", "images/s", "seconds"])
    rows = []
    for line in lines[header + 1 :]:
        if not re.match(r" *\d+  ", line):
            break
        rows.append(line.replace(" %", "%").split())
    return rows


def read_log(path):
    steps, losses = zip(*(line.split() for line in path.read_text().splitlines()))
    assert list(map(int, steps)) == list(range(1, len(steps) + 1))
    return np.array(losses, float)


def python_program(program, *options, **more):
    command = [sys.executable, str(ROOT / "apps" / "mnist" / f"{program}.py"), *map(str, options)]
    done = subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done


# ---- Options --------------------------------------------------------------------------------------------------------


def both(program, options, monkeypatch, capsys, **more):
    """(exit code, stdout, stderr) of the Python program and of the C++ program."""
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "mnist"))
    module = importlib.import_module(program.removesuffix("_2gpu"))
    monkeypatch.setattr(sys, "argv", [program])
    try:
        code = module.main(list(map(str, options)))
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    done = run(program, *options, **more)
    return (code, said.out, said.err), (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("option", ["--help", "-h", "--he"])
@pytest.mark.parametrize("program", ["mnist_mlp", "mnist_cnn"])
def test_both_programs_help_is_the_same(program, option, monkeypatch, capsys):
    """Except for the data: the C++ programs read only IDX files, and download nothing."""
    if (program, option) == ("mnist_mlp", "--he"):
        option = "--hel"  # also a prefix of --hidden
    ends = both(program, [option], monkeypatch, capsys)
    texts = []
    for code, out, err in ends:
        assert (code, err) == (0, "") and out.startswith(f"usage: {program} [--help] [options]\n\nTrain a ")
        out = re.sub(r"^  --data PATH .*$", "data", out, flags=re.M)
        texts.append(re.sub(r"the user's cache.*?digits are drawn\.\s", "", out, flags=re.S).split())
    assert texts[0] == texts[1]
    assert {"--epochs", "--quiet"} < set(texts[0]) and ("--hidden" in texts[0]) == (program == "mnist_mlp")


def test_help_of_two_gpus():
    shown = [run(program, "--help").stdout.splitlines() for program in ("mnist_cnn", "mnist_cnn_2gpu")]
    assert [line for line in shown[1] if line not in shown[0]] == [
        "usage: mnist_cnn_2gpu [--help] [options]",
        "Train a convolutional network (two convolutions with max pooling, a full connection to 10) on MNIST with owl, "
        "every minibatch shared between two GPUs. OWL_SIMULATED_GPUS=2 runs it anywhere.",
        "  --num-gpus N          share every minibatch among the first N GPUs (default: 2)",
    ]


def test_help_of_the_tape():
    shown = [run(program, "--help").stdout.splitlines() for program in ("mnist_mlp", "mnist_tape")]
    assert [line for line in shown[1] if line not in shown[0]] == [
        "usage: mnist_tape [--help] [options]",
        "Train a multi-layer perceptron (784 inputs, two hidden layers of ReLU, 10 classes) on MNIST with owl, by gradients "
        "that a tape derives.",
    ]


INT, SEED = 2**63 - 1, 2**64 - 1
WRONG = [
    (["--epochs", "-1"], "argument --epochs: expected an integer of at least 1, not '-1'"),
    (["--epochs", "two"], "argument --epochs: expected an integer of at least 1, not 'two'"),
    (["--epochs", ""], "argument --epochs: expected an integer of at least 1, not ''"),
    (["--epochs="], "argument --epochs: expected an integer of at least 1, not ''"),
    (["--epochs", "1_0"], "argument --epochs: expected an integer of at least 1, not '1_0'"),
    (["--epochs", " 1"], "argument --epochs: expected an integer of at least 1, not ' 1'"),
    (["--epochs", "+-1"], "argument --epochs: expected an integer of at least 1, not '+-1'"),
    (["--epochs", "0x10"], "argument --epochs: expected an integer of at least 1, not '0x10'"),
    (["--epochs", str(INT + 1)], f"argument --epochs: expected an integer of at most {INT}, not '{INT + 1}'"),
    (["--epochs", f"+{INT + 1}"], f"argument --epochs: expected an integer of at most {INT}, not '+{INT + 1}'"),
    (["--epochs", "99999999999999999999"],
     f"argument --epochs: expected an integer of at most {INT}, not '99999999999999999999'"),
    (["--epochs", "-99999999999999999999"],
     "argument --epochs: expected an integer of at least 1, not '-99999999999999999999'"),
    (["--epochs"], "argument --epochs: expected one argument"),
    (["--ep"], "argument --epochs: expected one argument"),
    (["--epochs", "--quiet"], "argument --epochs: expected an integer of at least 1, not '--quiet'"),
    (["--epochs", "it's"], "argument --epochs: expected an integer of at least 1, not 'it's'"),
    (["--batch-size", "0"], "argument --batch-size: expected an integer of at least 1, not '0'"),
    (["--batch-size", "1.5"], "argument --batch-size: expected an integer of at least 1, not '1.5'"),
    (["--batch-size", str(INT + 1)], f"argument --batch-size: expected an integer of at most {INT}, not '{INT + 1}'"),
    (["--lr", "0"], "argument --lr: expected a number above 0, not '0'"),
    (["--lr", "nan"], "argument --lr: expected a number above 0, not 'nan'"),
    (["--lr", "inf"], "argument --lr: expected a number above 0, not 'inf'"),
    (["--lr", "1e999"], "argument --lr: expected a number above 0, not '1e999'"),
    (["--lr", "1e-999"], "argument --lr: expected a number above 0, not '1e-999'"),
    (["--lr", "0.1x"], "argument --lr: expected a number above 0, not '0.1x'"),
    (["--lr", "0x1p3"], "argument --lr: expected a number above 0, not '0x1p3'"),
    (["--lr", "1_0"], "argument --lr: expected a number above 0, not '1_0'"),
    (["--lr", " 1"], "argument --lr: expected a number above 0, not ' 1'"),
    (["--lr", "1e"], "argument --lr: expected a number above 0, not '1e'"),
    (["--lr", "."], "argument --lr: expected a number above 0, not '.'"),
    (["--lr", ""], "argument --lr: expected a number above 0, not ''"),
    (["--momentum", "1"], "argument --momentum: expected a number at least 0 and below 1, not '1'"),
    (["--weight-decay", "-0.1"], "argument --weight-decay: expected a number at least 0, not '-0.1'"),
    (["--weight-decay", "inf"], "argument --weight-decay: expected a number at least 0, not 'inf'"),
    (["--seed", "-3"], "argument --seed: expected an integer of at least 0, not '-3'"),
    (["--seed", str(SEED + 1)], f"argument --seed: expected an integer of at most {SEED}, not '{SEED + 1}'"),
    (["--max-steps", "0"], "argument --max-steps: expected an integer of at least 1, not '0'"),
    (["--max-steps", str(INT + 1)], f"argument --max-steps: expected an integer of at most {INT}, not '{INT + 1}'"),
    (["--device", "tpu"], "argument --device: expected cpu, gpu, gpu:N or auto, not 'tpu'"),
    (["--device", "gpu:"], "argument --device: expected cpu, gpu, gpu:N or auto, not 'gpu:'"),
    (["--device", "gpu:x"], "argument --device: expected cpu, gpu, gpu:N or auto, not 'gpu:x'"),
    (["--device", "gpu:-1"], "argument --device: expected cpu, gpu, gpu:N or auto, not 'gpu:-1'"),
    (["--device", "gpu:+1"], "argument --device: expected cpu, gpu, gpu:N or auto, not 'gpu:+1'"),
    (["--device", f"gpu:{2**31}"], f"argument --device: expected cpu, gpu, gpu:N or auto, not 'gpu:{2**31}'"),
    (["--num-gpus", "0"], "argument --num-gpus: expected an integer of at least 1, not '0'"),
    (["--num-gpus", "2", "--device", "cpu"], "--num-gpus 2 takes the first GPUs; it does not go with --device cpu"),
    (["--num-gpus", "2", "--batch-size", "1"], "--num-gpus 2 leaves nothing to share in --batch-size 1"),
    (["--num-gpus", str(INT), "--batch-size", "1"], f"--num-gpus {INT} leaves nothing to share in --batch-size 1"),
    (["--log", "/no/such/folder/log"], "--log /no/such/folder/log: No such file or directory"),
    (["--log", "/"], "--log /: Is a directory"),
    (["--log", ""], "--log : No such file or directory"),
    (["--no-such-option"], "unrecognized arguments: --no-such-option"),
    (["--no-such-option=1", "--epochs", "0"], "unrecognized arguments: --no-such-option=1"),
    (["--epochs", "0", "--no-such-option"], "argument --epochs: expected an integer of at least 1, not '0'"),
    (["-x"], "unrecognized arguments: -x"),
    (["-hx"], "unrecognized arguments: -hx"),
    (["-"], "unrecognized arguments: -"),
    ([""], "unrecognized arguments: "),
    (["stray"], "unrecognized arguments: stray"),
    (["--", "--help"], "unrecognized arguments: --help"),
    (["--quiet", "stray", "--help"], "unrecognized arguments: stray"),
    (["--m", "1"], "ambiguous option: --m could match --momentum, --max-steps"),
    (["--m=1"], "ambiguous option: --m=1 could match --momentum, --max-steps"),
    (["--l", "1"], "ambiguous option: --l could match --lr, --log"),
    (["--quiet=1"], "argument --quiet: takes no value"),
    (["--help=1"], "argument --help: takes no value"),
    (["--qui="], "argument --quiet: takes no value"),
]  # fmt: skip


@pytest.mark.parametrize("options, message", WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
@pytest.mark.parametrize("program", PROGRAMS)
def test_wrong_options(program, options, message, monkeypatch, capsys):
    """Both programs refuse the same options with the same message."""
    ends = both(program, options, monkeypatch, capsys)
    for end in ends if program != "mnist_cnn_2gpu" else ends[1:]:
        assert end == (2, "", f"usage: {program} [--help] [options]\n{program}: error: {message}\n")


@pytest.mark.parametrize("options", [["--epochs", "+2"], ["--epochs", "02"], ["--epochs=2"], ["--ep", "2"],
                                     ["--epochs", "1", "--epochs", "2"], ["--epochs", "2", "--"],
                                     ["--epochs", "2", "--lr", "1.e-1"], ["--epochs", "2", "--lr", "+.1E0"],
                                     ["--epochs", "2", "--momentum", "1e-999"], ["--epochs", "2", "--seed", str(SEED)],
                                     ["--epochs", "2", "--device", "cpu"],
                                     ["--epochs", str(INT), "--max-steps", "2", "--batch-size", "20"]], ids=" ".join)  # fmt: skip
def test_both_programs_take_the_same(options, few, monkeypatch, capsys):
    for code, out, err in both("mnist_mlp", ["--data", few, *options], monkeypatch, capsys):
        assert (code, err) == (0, "") and len(table_of(out)) == 2


def test_a_batch_of_more_than_there_is(few, monkeypatch, capsys):
    """The message appears if the user gave the option."""
    for options, said in ((["--batch-size", "70000"], "70000"), (["--batch-size", "21"], "21"),
                          (["--batch-size", "20"], ""), ([], "")):  # fmt: skip
        for code, out, err in both("mnist_mlp", ["--data", few, "--max-steps", 1, *options], monkeypatch, capsys):
            assert code == 0 and len(table_of(out)) == 1
            assert err == (said and f"mnist_mlp: --batch-size {said} is more than the 20 training images: every step takes "
                                    "all of them\n")  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("ending", [[], ["--lr", "1e20"]], ids=["", "with another error"])
def test_a_log_that_cannot_be_written_ends_both(ending, few, data, monkeypatch, capsys):
    folder = data if ending else few
    for code, out, err in both("mnist_mlp", ["--data", folder, "--log", "/dev/full", *ending], monkeypatch, capsys):
        assert code == 1
        if ending:
            assert err.startswith("mnist_mlp: error: the loss became ") and len(err.splitlines()) == 1
        else:
            assert err == "mnist_mlp: error: --log /dev/full: No space left on device\n" and "stopped by an error" in out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("options", [["--help"], ["--epochs", "2"], ["--quiet"]], ids=" ".join)
def test_standard_output_that_cannot_be_written_ends_both(options, few):
    for command in ([binary("mnist_mlp")], [sys.executable, ROOT / "apps/mnist/mnist_mlp.py"]):
        name = Path(command[-1]).name
        with open("/dev/full", "w") as full:
            done = subprocess.run([*command, "--data", few, *options], env=environment(PYTHONUNBUFFERED=""), stdout=full,
                                  stderr=subprocess.PIPE, text=True, timeout=PATIENCE)  # fmt: skip
        assert (done.returncode, done.stderr) == (1, f"{name}: error: standard output: No space left on device\n")
        reader, writer = os.pipe()
        os.close(reader)
        if options != ["--help"]:
            done = subprocess.run([*command, "--data", few, *options], env=environment(), stdout=writer,
                                  stderr=subprocess.PIPE, text=True, timeout=PATIENCE)  # fmt: skip
            assert (done.returncode, done.stderr) == (1, f"{name}: error: standard output: Broken pipe\n")
        os.close(writer)


def test_hidden_is_an_option_of_the_perceptron_alone(few):
    assert "--hidden: expected an integer of at least 1" in run("mnist_mlp", "--hidden", "0").stderr
    assert "unrecognized arguments: --hidden" in run("mnist_cnn", "--hidden", "8").stderr
    succeed("mnist_mlp", "--hidden=8", "--data", few, "--epochs", 1)


def test_an_option_may_be_abbreviated(few):
    assert len(table_of(succeed("mnist_mlp", "--data", few, "--epoch", 2).stdout)) == 2


# ---- Training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["mnist_mlp", "mnist_tape"])
def test_mlp_learns(program, data):
    done = succeed(program, "--data", data, "--epochs", 3, "--batch-size", 64, "--device", "cpu")
    rows = table_of(done.stdout)
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1][1]) < float(rows[0][1])
    assert float(rows[-1][2].rstrip("%")) > 75
    # Not a terminal: one line for each epoch, and nothing on stderr.
    assert len(re.findall(r"^epoch \d/3  loss [\d.]+  test [\d.]+ %  [\d,]+ images/s", done.stdout, re.M)) == 3
    assert done.stderr == "" and "\r" not in done.stdout


@pytest.mark.parametrize("program", ["mnist_cnn", "mnist_cnn_2gpu"])
def test_cnn_learns(program, data):
    done = succeed(program, "--data", data, "--epochs", 1, "--batch-size", 32, "--max-steps", 100, "--quiet")
    (row,) = table_of(done.stdout)
    assert float(row[2].rstrip("%")) > 75
    assert "epoch 1/1" not in done.stdout


@pytest.mark.parametrize("program, batch", [("mnist_mlp", 100), ("mnist_cnn", 61)])
def test_trains_as_the_python_program_does(program, batch, digits, tmp_path):
    """One minibatch of all images in each step: nothing depends on the shuffling, so the losses are the same."""
    images, labels = digits
    folder = write_digits(tmp_path / "digits", images[: batch + 20], labels[: batch + 20], batch)
    curves = []
    for name, start in (("cpp", succeed), ("python", python_program)):
        log = tmp_path / name
        start(program, "--data", folder, "--epochs", 25, "--batch-size", batch, "--seed", 7, "--log", log)
        curves.append(read_log(log))
    assert len(curves[0]) == 25 and curves[0][-1] < 0.9 * curves[0][0]
    np.testing.assert_allclose(*curves, rtol=1e-4)


def test_the_tape_follows_gradients_by_hand(digits, tmp_path):
    """Every step takes all images, so the order does not matter, and the losses are those of a network written here."""
    batch, hidden, steps = 100, 24, 25
    images, labels = digits
    folder = write_digits(tmp_path / "digits", images[: batch + 20], labels[: batch + 20], batch)
    succeed("mnist_tape", "--data", folder, "--epochs", steps, "--batch-size", batch, "--hidden", hidden, "--lr", 0.05,
            "--momentum", 0.8, "--weight-decay", 0.001, "--seed", 7, "--log", tmp_path / "log")  # fmt: skip

    x, target = images[:batch].reshape(batch, 784) / 256, np.eye(10)[labels[:batch]]
    owl.seed(7)
    weights = [owl.randn([n_out, n_in], 0.0, (2 / n_in) ** 0.5).to_numpy().astype(float)
               for n_in, n_out in ((784, hidden), (hidden, hidden), (hidden, 10))]  # fmt: skip
    params = [p for w in weights for p in (w, np.zeros(w.shape[1]))]  # NumPy's shapes are owl's reversed
    velocity, losses = [0] * 6, []
    for step in range(1, steps + 1):
        w1, b1, w2, b2, w3, b3 = params
        h1 = np.maximum(x @ w1 + b1, 0)
        h2 = np.maximum(h1 @ w2 + b2, 0)
        logits = h2 @ w3 + b3
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        losses.append(-np.log(p[target == 1]).mean())
        e3 = (p - target) / batch
        e2 = e3 @ w3.T * (h2 > 0)
        e1 = e2 @ w2.T * (h1 > 0)
        progress = step / (steps + 1)
        lr = 0.05 * (1 + np.cos(np.pi * (progress - 0.4) / (0.4 if progress < 0.4 else 0.6))) / 2
        for k, gradient in enumerate([x.T @ e1, e1.sum(0), h1.T @ e2, e2.sum(0), h2.T @ e3, e3.sum(0)]):
            decay = 0.001 * params[k] if k % 2 == 0 else 0
            velocity[k] = 0.8 * velocity[k] - lr * (gradient + decay)
            params[k] = params[k] + velocity[k]
    assert losses[-1] < 0.9 * losses[0]
    np.testing.assert_allclose(read_log(tmp_path / "log"), losses, rtol=1e-4)


@pytest.mark.parametrize("program", ALL_PROGRAMS)
def test_log_is_the_same_for_the_same_seed(program, data, tmp_path):
    logs = []
    for name, seed in (("a", 3), ("b", 3), ("c", 2**64 - 1)):
        log = tmp_path / name
        succeed(program, "--data", data, "--max-steps", 12, "--batch-size", 32, "--seed", seed, "--log", log)
        logs.append(read_log(log))
    assert len(logs[0]) == 12
    np.testing.assert_array_equal(logs[0], logs[1])
    assert not np.array_equal(logs[0], logs[2])


@pytest.mark.parametrize("program, batch", [("mnist_mlp", 100), ("mnist_cnn", 61), ("mnist_tape", 100)])
def test_loss_curve_is_one_devices_whatever_their_number(program, batch, data, tmp_path):
    def curve(name, *options, which=program):
        log = tmp_path / name
        succeed(which, "--data", data, "--epochs", 15, "--max-steps", 100, "--batch-size", batch, "--log", log,
                *options, OWL_SIMULATED_GPUS="3")  # fmt: skip
        return read_log(log)

    one = curve("one", "--device", "cpu")
    assert len(one) == 100 and one[-1] < one[0]
    for n in (2, 3):
        np.testing.assert_allclose(curve(f"{n}", "--num-gpus", n), one, rtol=1e-4)
    if program == "mnist_cnn":
        np.testing.assert_allclose(curve("2gpu", which="mnist_cnn_2gpu"), one, rtol=1e-4)


def test_batch_size_larger_than_the_data(data):
    done = succeed("mnist_mlp", "--data", data, "--epochs", 2, "--batch-size", 100_000)
    assert len(table_of(done.stdout)) == 2


def test_progress_on_a_terminal(data):
    command = [binary("mnist_mlp"), "--data", data, "--epochs", "2", "--batch-size", "16"]
    code, stdout, shown = run_on_terminal(command, PATIENCE, env=environment(TERM="xterm"))
    assert code == 0
    assert "epoch 1/2" in shown and "/5,200 images" in shown
    assert "\n" not in shown and shown.endswith("\r")  # one line, overwritten and finally erased
    assert len(table_of(stdout)) == 2 and "\r" not in stdout
    # At most four times a second, and at the end of each epoch.
    seconds = sum(float(row[4]) + 0.05 for row in table_of(stdout))
    assert shown.count("images/s") <= 4 * seconds + 2


# ---- Data -----------------------------------------------------------------------------------------------------------


def test_places_are_searched_in_order(few, tmp_path):
    home, cache, working = tmp_path / "home", tmp_path / "cache", tmp_path / "work"
    working.mkdir()
    images, labels = owl._owl.make_digits(7, 30)

    def source(*options, **more):
        """The number of images of a training epoch, which differs for every place."""
        done = succeed("mnist_mlp", "--epochs", 1, *options, cwd=working, HOME=str(home), **more)
        assert done.stderr == ""
        log = tmp_path / "log"
        succeed("mnist_mlp", "--epochs", 1, "--batch-size", 1, "--log", log, *options, cwd=working, HOME=str(home),
                **more)  # fmt: skip
        return len(read_log(log))

    for count, folder in ((11, home / ".cache" / "owl"), (12, home / ".cache" / "owl" / "mnist"), (13, cache / "owl"),
                          (14, cache / "owl" / "mnist")):  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        write_digits(folder, images, labels, count, ".gz")
        base = str(cache) if cache in folder.parents else "relative is ignored"
        assert source(XDG_CACHE_HOME=base) == count
    (cache / "owl" / "mnist" / (FILES[0] + ".gz")).unlink()  # a download that is not complete
    assert source(XDG_CACHE_HOME=str(cache)) == 13
    write_digits(working, images, labels, 15)
    assert source(XDG_CACHE_HOME=str(cache)) == 15
    assert source(OWL_DATA=str(few)) == 20
    assert source("--data", write_digits(tmp_path / "named", images, labels, 16), OWL_DATA=str(few)) == 16
    write_digits(home / "mine", images, labels, 17)
    assert source("--data", "~/mine") == 17


def test_packed_and_plain_files_of_both_names(digits, tmp_path):
    images, labels = digits
    logs = []
    for i, (ending, separator) in enumerate((("", "-"), (".gz", "-"), ("", "."), (".gz", "."))):
        folder = write_digits(tmp_path / f"it's; a $(folder) {i}", images[:600], labels[:600], 500, ending)
        for name in FILES:
            (folder / (name + ending)).rename(folder / (name.replace("-idx", separator + "idx") + ending))
        logs.append(tmp_path / f"log{i}")
        succeed("mnist_mlp", "--data", folder, "--max-steps", 5, "--batch-size", 50, "--log", logs[-1])
    assert len(read_log(logs[0])) == 5
    assert len({log.read_text() for log in logs}) == 1


def test_synthetic_digits_are_the_last_resort(tmp_path):
    done = succeed("mnist_mlp", "--max-steps", 1, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert "SYNTHETIC" in line and "OWL_DATA" in line
    assert len(table_of(done.stdout)) == 1


@pytest.mark.parametrize("program", ALL_PROGRAMS)
def test_missing_data(program, tmp_path):
    gpus = {"OWL_SIMULATED_GPUS": "2"}
    missing = tmp_path / "nowhere"
    assert refused(program, "--data", missing, **gpus) == f"{missing} (the data path): no such file or folder"
    assert refused(program, OWL_DATA=str(missing), **gpus) == f"{missing} (OWL_DATA): no such file or folder"
    for suffix in (".npz", ".mat"):
        (tmp_path / f"nowhere{suffix}").write_bytes(b"")
        assert refused(program, "--data", missing, **gpus).startswith(f"{missing}{suffix}: the C++ programs read MNIST's")
    assert "the data path is empty" in refused(program, "--data", "", **gpus)
    assert "found no MNIST in this folder; expected the four IDX files" in refused(program, "--data", tmp_path, **gpus)


def test_other_forms_are_refused_by_name(tmp_path):
    for name in ("mnist.npz", "mnist_all.mat"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_bytes(b"whatever")
        for named in (folder, folder / name):
            message = refused("mnist_mlp", "--data", named)
            assert str(folder / name) in message and "IDX files" in message and "Python programs read .npz" in message
        assert "Python programs" in refused("mnist_mlp", cwd=folder)  # also if the user named no place
    (tmp_path / "other.bin").write_bytes(b"")
    assert "expected a folder" in refused("mnist_mlp", "--data", tmp_path / "other.bin")


def idx(magic, *rest, body=b""):
    return struct.pack(f">{1 + len(rest)}I", magic, *rest) + body


PIXELS = 28 * 28


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(
    "which, content, message",
    [
        (0, b"", "expected an IDX header of 16 bytes, found only 0"),
        (1, b"\0\0\x08", "expected an IDX header of 8 bytes, found only 3"),
        (0, idx(0x801, 20, body=bytes(20)), "expected magic number 2051 (IDX images), found 2049 (IDX labels)"),
        (1, idx(0x803, 20, 28, 28), "expected magic number 2049 (IDX labels), found 2051 (IDX images)"),
        (2, idx(0x12345678, 10, 28, 28), "found 0x12345678"),
        (0, gzip.compress(b"x"), "gzip data, whose name should end in .gz"),
        (0, idx(0x803, 20, 32, 28, body=bytes(20 * 32 * 28)), "expected images of 28 x 28 pixels, found 32 x 28"),
        (0, idx(0x803, 20, 28, 28, body=bytes(20 * PIXELS - 1)), "20 images, 15680 bytes, but only 15679 follow"),
        (0, idx(0x803, 20, 28, 28, body=bytes(20 * PIXELS + 1)), "20 images, 15680 bytes, but more follow"),
        (0, idx(0x803, 0xFFFFFFFF, 28, 28), "promises 3367254359280 bytes of data"),
        (1, idx(0x801, 0xFFFFFFFF), "promises 4294967295 bytes of data"),
        (1, idx(0x801, 1_000_000_000, body=bytes(20)), "1000000000 labels, 1000000000 bytes, but only 20 follow"),
        (1, idx(0x801, 19, body=bytes(19)), "expected a label for each image, found 20 images and 19 labels"),
        (3, idx(0x801, 10, body=b"\0\1\2\3\4\5\6\7\x0a\0"), "expected labels of 0 to 9, found 10 at position 8"),
    ],
)
def test_damaged_files(which, content, message, packed, few, tmp_path):
    ending = ".gz" if packed else ""
    images, labels = owl._owl.make_digits(6, 30)
    folder = write_digits(tmp_path / "digits", images, labels, 20, ending)
    name = folder / (FILES[which] + ending)
    name.write_bytes(gzip.compress(content) if packed else content)
    text = refused("mnist_mlp", "--data", folder)
    assert message in text and str(folder) in text and FILES[which] in text


def test_no_images_at_all(tmp_path):
    images, labels = owl._owl.make_digits(6, 30)
    assert "expected images, found none" in refused(
        "mnist_mlp", "--data", write_digits(tmp_path / "none", images, labels, 0)
    )


def test_some_of_the_files(few, tmp_path):
    for name in FILES[:2]:
        (tmp_path / name).write_bytes((few / name).read_bytes())
    message = refused("mnist_mlp", "--data", tmp_path)
    assert f"has some of MNIST's four IDX files but not {FILES[2]}, {FILES[3]}" in message


def test_damaged_gzip(tmp_path):
    images, labels = owl._owl.make_digits(6, 30)
    folder = write_digits(tmp_path / "digits", images, labels, 20, ".gz")
    name = folder / (FILES[0] + ".gz")
    sound = name.read_bytes()
    for damage in (sound[:-1], sound[:40], sound[: len(sound) // 2], b"", b"no gzip data at all", sound[1:],
                   sound[:-8] + bytes(4) + sound[-4:]):  # fmt: skip
        name.write_bytes(damage)
        message = refused("mnist_mlp", "--data", folder)
        assert str(name) in message and "compressed data" in message or "IDX header" in message


def test_mutated_files_never_crash(few, tmp_path):
    """A run with damaged data either trains or ends with one line that names a file."""
    rng = np.random.default_rng(1)
    images, labels = owl._owl.make_digits(6, 30)
    ended = {0: 0, 1: 0}
    for i in range(60):
        ending = ".gz" if i % 2 else ""
        folder = write_digits(tmp_path / f"digits{i}", images, labels, 20, ending)
        name = folder / (FILES[i // 2 % 4] + ending)
        content = bytearray(name.read_bytes())
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(0, min(len(content), 64))] = rng.integers(0, 256)
        name.write_bytes(content[: rng.integers(1, len(content) + 1)] if i % 3 == 0 else content)
        done = run("mnist_mlp", "--data", folder, "--epochs", 1, "--quiet")
        ended[done.returncode] += 1  # no other exit code
        if done.returncode:
            (line,) = done.stderr.splitlines()
            assert line.startswith("mnist_mlp: error: ") and str(folder) in line
    assert ended[1] > 20


def test_without_gzip_packed_files_are_refused(tmp_path):
    images, labels = owl._owl.make_digits(6, 30)
    folder = write_digits(tmp_path / "digits", images, labels, 20, ".gz")
    message = refused("mnist_mlp", "--data", folder, PATH=str(tmp_path))
    assert FILES[0] + ".gz" in message and "gzip failed" in message and "unpack the file" in message


# ---- What else can go wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program, options",
    [("mnist_mlp", ["--device", "gpu:99"]), ("mnist_mlp", ["--num-gpus", "99"]), ("mnist_cnn_2gpu", [])],
)
def test_missing_gpu(program, options, few):
    message = refused(program, "--data", few, "--batch-size", 128, *options)
    assert "GPU" in message and "OWL_SIMULATED_GPUS" in message


def test_a_loss_that_grows_out_of_bounds_stops_the_run(data):
    done = run("mnist_mlp", "--data", data, "--lr", "1e20", "--epochs", 2)
    assert done.returncode == 1
    assert "the loss became" in done.stderr and "smaller --lr" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "stopped by an error" in done.stdout


def test_the_process_ends_cleanly_while_work_runs(data):
    """Objects that kernels use must outlive the threads that run the kernels."""
    for _ in range(12):
        done = run("mnist_mlp", "--data", data, "--lr", "1e20", "--quiet")
        assert done.returncode == 1, done.stderr


def test_memory_that_does_not_suffice(data):
    done = run("mnist_mlp", "--data", data, "--epochs", 1, OWL_MEMORY_LIMIT="1000000")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "memory" in done.stderr


@pytest.mark.parametrize("program", ALL_PROGRAMS)
def test_ctrl_c_ends_with_what_was_reached(program, data, tmp_path):
    process = subprocess.Popen([binary(program), "--data", data, "--epochs", "100000", "--log", tmp_path / "log"],
                               env=environment(OWL_SIMULATED_GPUS="2"), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        first = process.stdout.readline()  # an epoch is done, the next one runs
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert first.startswith("epoch 1/100000")
    assert process.returncode == 130, stderr
    assert "interrupted" in stdout and table_of(stdout)[0][0] == "1"
    assert stderr == "" and len(read_log(tmp_path / "log")) >= 20


def test_ctrl_c_while_data_is_read(tmp_path):
    """The gzip that unpacks it gets the signal too, as from a terminal; the file does not count as damaged."""
    images, labels = owl._owl.make_digits(6, 30)
    folder = write_digits(tmp_path / "digits", images, labels, 20, ".gz")
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "gzip").write_text(f"#!/bin/sh\necho started > '{tmp_path / 'mark'}'\nexec sleep 1000\n")
    (slow / "gzip").chmod(0o755)
    os.mkfifo(tmp_path / "mark")
    process = subprocess.Popen([binary("mnist_mlp"), "--data", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment(PATH=f"{slow}{os.pathsep}{os.environ['PATH']}"), text=True,
                               start_new_session=True)  # fmt: skip
    try:
        assert (tmp_path / "mark").read_text() == "started\n"
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert stdout.strip() == "interrupted before the first step was done" and stderr == ""


# ---- The real data --------------------------------------------------------------------------------------------------

REAL = os.path.abspath(os.environ["OWL_DATA"]) if os.environ.get("OWL_DATA") else None


@pytest.mark.skipif(not REAL, reason="OWL_DATA does not name the real MNIST")
def test_real_mnist_to_the_python_programs_accuracy():
    reached = []
    for start in (succeed, python_program):
        rows = table_of(start("mnist_mlp", "--data", REAL, "--epochs", 2).stdout)
        reached.append(float(rows[-1][2].rstrip("%")))
    assert min(reached) > 95 and abs(reached[0] - reached[1]) < 1
