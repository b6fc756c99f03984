"""The MNIST programs as a user runs them: options, training on little data, devices, errors and Ctrl-C."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import owl
from conftest import run_on_terminal

APPS = Path(__file__).resolve().parents[2] / "apps" / "mnist"
sys.path.insert(0, str(APPS))

PROGRAMS = ("mnist_mlp", "mnist_cnn")
TRAIN, TEST = 5200, 400  # 21 minibatches of 256
PATIENCE = 150  # seconds until a program counts as hung; no test measures speed


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a small set of digits."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = owl._owl.make_digits(5, TRAIN + TEST)
    np.savez(folder / "mnist.npz", x_train=images[:TRAIN], y_train=labels[:TRAIN], x_test=images[TRAIN:],
             y_test=labels[TRAIN:])  # fmt: skip
    return folder


def environment(**more):
    """This process's environment without its data and simulated devices."""
    kept = {name: value for name, value in os.environ.items() if name not in ("OWL_DATA", "OWL_SIMULATED_GPUS")}
    return {**kept, **more}


def command(program, *options):
    return [sys.executable, str(APPS / f"{program}.py"), *map(str, options)]


def run(program, *options, **more):
    return subprocess.run(command(program, *options), env=environment(**more), capture_output=True, text=True,
                          timeout=PATIENCE)  # fmt: skip


def succeed(program, *options, **more):
    done = run(program, *options, **more)
    assert done.returncode == 0, done.stderr
    return done


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


# ---- Options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_names_every_option(program):
    text = succeed(program, "--help").stdout
    options = ["--data", "--epochs", "--batch-size", "--lr", "--momentum", "--weight-decay", "--device", "--num-gpus",
               "--seed", "--max-steps", "--log", "--quiet"]  # fmt: skip
    for option in options + (["--hidden"] if program == "mnist_mlp" else []):
        assert option in text


@pytest.mark.parametrize(
    "options, message",
    [
        (["--epochs", "-1"], "--epochs: expected an integer of at least 1, not '-1'"),
        (["--epochs", "two"], "--epochs: expected an integer"),
        (["--batch-size", "0"], "--batch-size: expected an integer of at least 1, not '0'"),
        (["--lr", "0"], "--lr: expected a number above 0, not '0'"),
        (["--lr", "nan"], "--lr: expected a number above 0"),
        (["--momentum", "1"], "--momentum: expected a number at least 0 and below 1, not '1'"),
        (["--weight-decay", "-0.1"], "--weight-decay: expected a number at least 0"),
        (["--weight-decay", "inf"], "--weight-decay: expected a number at least 0"),
        (["--seed", "-3"], "--seed: expected an integer of at least 0"),
        (["--max-steps", "0"], "--max-steps: expected an integer of at least 1"),
        (["--device", "tpu"], "--device: expected cpu, gpu, gpu:N or auto, not 'tpu'"),
        (["--device", "gpu:x"], "--device: expected cpu, gpu, gpu:N or auto, not 'gpu:x'"),
        (["--num-gpus", "0"], "--num-gpus: expected an integer of at least 1"),
        (["--num-gpus", "2", "--device", "cpu"], "does not go with --device cpu"),
        (["--num-gpus", "2", "--batch-size", "1"], "leaves nothing to share in --batch-size 1"),
        (["--log", "/no/such/folder/log"], "--log /no/such/folder/log: No such file"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
    ],
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_wrong_options(program, options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(program).main(options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_hidden_units_have_to_be_some(capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("mnist_mlp").main(["--hidden", "0"])
    assert "--hidden: expected an integer of at least 1" in capsys.readouterr().err


# ---- Training -------------------------------------------------------------------------------------------------------


def test_mlp_learns(data):
    done = succeed("mnist_mlp", "--data", data, "--epochs", 3, "--batch-size", 64, "--device", "cpu")
    rows = table_of(done.stdout)
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1][1]) < float(rows[0][1])
    assert float(rows[-1][2].rstrip("%")) > 75
    # Not a terminal: one line for each epoch, and nothing on stderr.
    assert len(re.findall(r"^epoch \d/3  loss [\d.]+  test [\d.]+ %  [\d,]+ images/s", done.stdout, re.M)) == 3
    assert done.stderr == "" and "\r" not in done.stdout


def test_cnn_learns(data):
    done = succeed("mnist_cnn", "--data", data, "--epochs", 1, "--batch-size", 32, "--max-steps", 100, "--quiet")
    (row,) = table_of(done.stdout)
    assert float(row[2].rstrip("%")) > 75
    assert "epoch 1/1" not in done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_log_is_the_same_for_the_same_seed(program, data, tmp_path):
    logs = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        log = tmp_path / name
        succeed(program, "--data", data, "--max-steps", 12, "--batch-size", 32, "--seed", seed, "--log", log)
        logs.append(read_log(log))
    assert len(logs[0]) == 12
    np.testing.assert_array_equal(logs[0], logs[1])
    assert not np.array_equal(logs[0], logs[2])


def test_batch_size_larger_than_the_data(data):
    done = succeed("mnist_mlp", "--data", data, "--epochs", 2, "--batch-size", 100_000)
    assert len(table_of(done.stdout)) == 2


@pytest.mark.parametrize("program, batch", [("mnist_mlp", 100), ("mnist_cnn", 61)])
def test_loss_curve_is_one_devices_whatever_their_number(program, batch, data, tmp_path):
    def curve(name, *options):
        log = tmp_path / name
        succeed(program, "--data", data, "--epochs", 15, "--max-steps", 100, "--batch-size", batch, "--log", log,
                *options, OWL_SIMULATED_GPUS="3")  # fmt: skip
        return read_log(log)

    one = curve("one", "--device", "cpu")
    assert len(one) == 100 and one[-1] < one[0]
    for n in (2, 3):
        np.testing.assert_allclose(curve(f"{n}", "--num-gpus", n), one, rtol=1e-4)


@pytest.mark.parametrize("script", ["walkthrough_mlp", "walkthrough_cnn"])
def test_walkthrough(script, data, tmp_path):
    text = (APPS / f"{script}.py").read_text()
    assert "max_epoch = 10\n" in text
    (tmp_path / "script.py").write_text(text.replace("max_epoch = 10\n", "max_epoch = 1\n"))
    path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE,
                          env=environment(OWL_DATA=str(data), PYTHONPATH=path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    accuracies = re.findall(r"Minibatch \d+, training accuracy: ([\d.]+)", done.stdout)
    assert len(accuracies) == 1 and 0 <= float(accuracies[0]) <= 1


def test_progress_bar_on_a_terminal(data):
    pytest.importorskip("tqdm")
    options = ("--data", data, "--epochs", 2, "--batch-size", 16)
    code, stdout, bar = run_on_terminal(command("mnist_mlp", *options), PATIENCE, env=environment(TERM="xterm"))
    assert code == 0
    assert "epoch 1/2" in bar and "images" in bar
    assert len(table_of(stdout)) == 2 and "\r" not in stdout


# ---- What can go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_missing_data(program, tmp_path):
    done = run(program, "--data", tmp_path / "nowhere")
    assert done.returncode == 1
    assert f"{program}.py: error: {tmp_path / 'nowhere'}" in done.stderr and "no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_data(data, tmp_path):
    (tmp_path / "mnist.npz").write_bytes((data / "mnist.npz").read_bytes()[:-1000])
    done = run("mnist_mlp", OWL_DATA=str(tmp_path))
    assert done.returncode == 1
    assert str(tmp_path / "mnist.npz") in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [["--device", "gpu:99"], ["--num-gpus", "99"]])
def test_missing_gpu(options, data):
    done = run("mnist_mlp", "--data", data, *options)
    assert done.returncode == 1
    assert "mnist_mlp.py: error: " in done.stderr and "GPU" in done.stderr and "Traceback" not in done.stderr


def test_a_loss_that_grows_out_of_bounds_stops_the_run(data):
    done = run("mnist_mlp", "--data", data, "--lr", "1e20", "--epochs", 2)
    assert done.returncode == 1
    assert "the loss became" in done.stderr and "smaller --lr" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_ends_with_what_was_reached(program, data):
    process = subprocess.Popen(command(program, "--data", data, "--epochs", 100_000), env=environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        first = process.stdout.readline()  # an epoch is done, the next one runs
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert first.startswith("epoch 1/100000")
    assert process.returncode == 130, stderr
    assert "interrupted" in stdout and table_of(stdout)[0][0] == "1"
    assert "Traceback" not in stderr


# ---- Programs over owl.nn and owl.train -------------------------------------------------------------------------------

TRAINERS = ("train_mnist", "keras_exercise", "lenet", "study_batch_size")
ROWS = re.compile(r"epoch (\d+)\ntrain mean loss=([\d.]+), accuracy=([\d.]+), throughput=[\d,]+ images/sec\n"
                  r"test  mean loss=([\d.]+), accuracy=([\d.]+)\n")  # fmt: skip
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None


def arrays_of(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if name.startswith(("model/", "adam/"))}


def without_modules(program, *options, names):
    """The run of a program in a process that cannot import these modules."""
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({names})); sys.path.insert(0, {str(program.parent)!r}); "
    code += f"sys.argv = {[str(program), *map(str, options)]}; runpy.run_path({str(program)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=PATIENCE)


def drawn(path, stdout):
    """Whether the picture is there, or the output says what to install."""
    if HAS_MATPLOTLIB:
        return path.read_bytes().startswith(b"\x89PNG") and f"{path} is drawn" in stdout
    return not path.exists() and "pip install matplotlib" in stdout


@pytest.mark.parametrize("program", TRAINERS)
def test_help_of_trainers(program):
    text = succeed(program, "--help").stdout
    options = {"train_mnist": ["--unit", "--resume", "--loop", "--table"], "keras_exercise": ["--full"], "lenet": ["--resume"],
               "study_batch_size": ["--unit", "--rates", "--batches", "--seeds", "--resume"]}  # fmt: skip
    for option in ["--data", "--epoch", "--batchsize", "--gpu", "--out", "--seed", "--max-steps", *options[program]]:
        assert option in text


@pytest.mark.parametrize(
    "options, message",
    [
        (["--epoch", "0"], "--epoch/--epochs: expected an integer of at least 1, not '0'"),
        (["--batchsize", "two"], "--batchsize/--batch-size: expected an integer of at least 1, not 'two'"),
        (["--gpu", "-2"], "--gpu: expected an integer of at least -1, not '-2'"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
    ],
)
@pytest.mark.parametrize("program", TRAINERS)
def test_wrong_options_of_trainers(program, options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(program).main(options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("program", TRAINERS)
def test_places_that_trainers_lack(program, data, tmp_path):
    (tmp_path / "file").touch()
    for options, message in [
        (["--data", tmp_path / "nowhere"], "no such file"),
        (["--data", data, "--gpu", 99], "GPU"),
        (["--data", data, "--out", tmp_path / "file" / "folder"], "Not a directory"),
    ]:
        done = run(program, *options)
        assert done.returncode == 1, done.stdout
        assert f"{program}.py: error: " in done.stderr and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("loop", ["trainer", "plain"])
def test_train_mnist_goes_on_from_its_snapshot(loop, data, tmp_path):
    options = ("--data", data, "--loop", loop, "--unit", 20)
    done = succeed("train_mnist", *options, "--epoch", 3, "--out", tmp_path / "whole")
    rows = ROWS.findall(done.stdout)
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1][1]) < float(rows[0][1]) and float(rows[-1][4]) > 0.75
    assert drawn(tmp_path / "whole" / "history.png", done.stdout)

    succeed("train_mnist", *options, "--epoch", 1, "--out", tmp_path / "parts")
    snapshot = tmp_path / "parts" / "snapshot.npz"
    again = succeed("train_mnist", *options, "--epoch", 3, "--out", tmp_path / "parts", "--resume", snapshot)
    assert ROWS.findall(again.stdout) == rows[1:]
    if loop == "trainer":
        assert snapshot.read_bytes() == (tmp_path / "whole" / "snapshot.npz").read_bytes()
    else:
        whole, parts = arrays_of(tmp_path / "whole" / "snapshot.npz"), arrays_of(snapshot)
        assert len(whole) == 18 and whole.keys() == parts.keys()  # six parameters, two arrays of Adam's for each
        for name, x in whole.items():
            np.testing.assert_array_equal(x, parts[name])

    other = run("train_mnist", "--data", data, "--unit", 20, "--loop", {"trainer": "plain", "plain": "trainer"}[loop],
                "--resume", snapshot, "--out", tmp_path)  # fmt: skip
    assert other.returncode == 1 and f"error: {snapshot}: not a" in other.stderr and "Traceback" not in other.stderr


@pytest.mark.parametrize("program", ["train_mnist", "lenet"])
def test_trainers_go_on_within_an_epoch(program, data, tmp_path):
    options = ("--data", data, "--batchsize", 400, "--epoch", 1)
    name = {"train_mnist": "snapshot.npz", "lenet": "checkpoint.npz"}[program]
    succeed(program, *options, "--out", tmp_path / "whole")
    cut = succeed(program, *options, "--out", tmp_path / "parts", "--max-steps", 3)
    assert "stopped" in cut.stdout and f"--resume {tmp_path / 'parts' / name} goes on" in cut.stdout
    succeed(program, *options, "--out", tmp_path / "parts", "--resume", tmp_path / "parts" / name)
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_table_of_train_mnist(data, tmp_path):
    done = succeed("train_mnist", "--data", data, "--table", "--max-steps", 1, "--batchsize", 10, "--out", tmp_path)
    header, *rows = [line.split() for line in done.stdout.splitlines()]
    assert header == ["units", "images/s"] and [row[0] for row in rows] == ["50", "1000", "3000"]
    assert all(int(row[1].replace(",", "")) > 0 for row in rows)


def test_keras_exercise(data, tmp_path):
    done = succeed("keras_exercise", "--data", data, "--epoch", 4, "--batchsize", 32, "--out", tmp_path)
    assert "2,836 training images, 2,364 validation images" in done.stdout
    assert len(re.findall(r"^epoch \d/4: loss [\d.]+, accuracy [\d.]+, val_loss", done.stdout, re.M)) == 12
    table = {name: list(map(float, numbers.split())) for name, numbers in
             re.findall(r"^(sigmoid|relu|relu, dropout 0.2) +((?: +[\d.]+){6})$", done.stdout, re.M)}  # fmt: skip
    assert list(table) == ["sigmoid", "relu", "relu, dropout 0.2"]
    assert table["sigmoid"][3] < 0.5 < table["relu"][3]  # the accuracy in validation
    assert drawn(tmp_path / "histories.png", done.stdout)


def test_keras_exercise_with_all_images(data, tmp_path):
    done = succeed("keras_exercise", "--data", data, "--full", "--epoch", 1, "--out", tmp_path)
    assert f"{TRAIN:,} training images, {TEST} validation images" in done.stdout
    assert float(re.search(r"^relu, dropout 0.2 .* ([\d.]+)$", done.stdout, re.M)[1]) > 0.75
    assert drawn(tmp_path / "full.png", done.stdout)


def test_lenet(data, tmp_path):
    done = succeed("lenet", "--data", data, "--epoch", 1, "--batchsize", 64, "--out", tmp_path)
    assert "431,080 parameters, all trained" in done.stdout
    assert float(re.search(r"^test accuracy ([\d.]+) % after 82 steps$", done.stdout, re.M)[1]) > 80
    importlib.import_module("lenet").LeNet().load(tmp_path / "weights.npz")
    assert drawn(tmp_path / "history.png", done.stdout)


def test_trainers_without_matplotlib(data, tmp_path):
    done = without_modules(APPS / "train_mnist.py", "--data", data, "--epoch", 1, "--out", tmp_path, names=["matplotlib"])
    assert done.returncode == 0, done.stderr
    path = tmp_path / "history.png"
    assert f"{path} is not drawn: plots need matplotlib, pip install matplotlib" in done.stdout and not path.exists()


@pytest.mark.parametrize("program, options, first, ending", [
    ("train_mnist", [], "test  mean loss", "goes on there"),
    ("train_mnist", ["--loop", "plain"], "test  mean loss", "interrupted: --resume"),
    ("keras_exercise", [], "epoch 1/100000", "sigmoid  "),
    ("lenet", ["--batchsize", 500], "epoch 1/100000", "goes on here"),
    ("study_batch_size", [], "26 runs, 0 of them", "goes on here"),
])  # fmt: skip
def test_ctrl_c_ends_trainers_cleanly(program, options, first, ending, data, tmp_path):
    words = command(program, "--data", data, "--epoch", 100_000, "--out", tmp_path, *options)
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not (line := process.stdout.readline()).startswith(first):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert ending in stdout
    assert "Traceback" not in stderr


# ---- The study of batch sizes -----------------------------------------------------------------------------------------

SMALL = ("--epoch", 2, "--unit", 16, "--rates", 0.03, 0.1, "--batches", 32, 600, "--batchsize", 50, "--loss", 0.8, "--seeds", 2,
         "--seed", 5)  # fmt: skip


def study_table(stdout):
    """The cells of the table by the name of their row."""
    lines = stdout[stdout.index("\nbatch size ") + 1 :].split("\n\n")[0].splitlines()
    return {name: cells for name, *cells in (re.split(r"  +", line.strip()) for line in lines)}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A folder with 1,000 digits for training and 200 for testing."""
    folder = tmp_path_factory.mktemp("few")
    images, labels = owl._owl.make_digits(6, 1200)
    np.savez(folder / "mnist.npz", x_train=images[:1000], y_train=labels[:1000], x_test=images[1000:], y_test=labels[1000:])
    return folder


@pytest.fixture(scope="module")
def whole_study(few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "whole"
    return folder, succeed("study_batch_size", "--data", few, *SMALL, "--out", folder)


def test_study_answers_its_questions(whole_study):
    folder, done = whole_study
    assert len(re.findall(r"^\d+/10 batch-\d+-\S+: \d+ epochs, \d+ steps, test accuracy 0\.\d+, \d+ s$", done.stdout, re.M)) == 10
    assert "batch-600-sgd-0.1: 2 epochs, 4 steps, " in done.stdout  # with the 400 images that a batch of 600 leaves
    table = study_table(done.stdout)
    assert table["batch size"] == ["32", "50", "100", "600"]
    assert table["steps an epoch"] == ["32", "20", "10", "2"]
    assert set(table["SGD: best learning rate"]) <= {"0.03", "0.1", "-"}
    reached = table["test accuracy after 2 epochs, %"]
    assert float(reached[0]) > 30 and float(reached[0]) > float(reached[3])
    assert table["Adam until the loss is 0.8: runs"] == ["-", "2", "2", "-"]
    small, large = (table["test accuracy, %"][i] for i in (1, 2))
    gap = float(small.split(" ± ")[0]) - float(large.split(" ± ")[0])
    assert float(table["test accuracy below that of batch 50, %"][2].split(" ± ")[0]) == pytest.approx(gap, abs=0.011)
    wide, narrow = (float(table[f"sharpness, epsilon {e}"][1].split(" ± ")[0]) for e in ("0.001", "0.0005"))
    assert wide > narrow > 0  # the smaller box is within the larger
    assert "\nsaved after 23 of 60 steps and restored: the same bits\n" in done.stdout
    assert drawn(folder / "study.png", done.stdout)
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".png") == ["results.json", "table.txt"]
    assert (folder / "table.txt").read_text() in done.stdout


def test_study_goes_on_where_it_was_cut(whole_study, few, tmp_path, capsys):
    """The results have every digit of every accuracy and sharpness. It is cut in the grid, then in a comparison."""
    folder, done = whole_study
    ends = []
    for steps in (50, 150, 10**9):  # the grid has 176
        part = succeed("study_batch_size", "--data", few, *SMALL, "--out", tmp_path, "--max-steps", steps, "--resume")
        ends += re.findall(r"^stopped within (\S+); the same command with --resume goes on here$", part.stdout, re.M)
    assert len(ends) == 2 and "sgd" in ends[0] and "adam" in ends[1]
    for name in ("results.json", "table.txt"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()

    main = importlib.import_module("study_batch_size").main
    options = [str(option) for option in ("--data", few, *SMALL, "--out", tmp_path, "--resume")]
    assert main([*options, "--unit", "17"]) == 1
    assert f"error: {tmp_path / 'results.json'}: of a study with unit 16, not 17\n" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("[]")
    assert main(options) == 1
    assert f"error: {tmp_path / 'results.json'}: not the results of a study" in capsys.readouterr().err


def test_study_with_a_rate_that_diverges(few, tmp_path):
    done = succeed("study_batch_size", "--data", few, "--epoch", 3, "--rates", 1e9, "--batches", 600, "--max-steps", 20,
                   "--out", tmp_path)  # fmt: skip
    assert study_table(done.stdout)["test accuracy after 3 epochs, %"][-1] == "10.00"


def test_the_sharpness_of_a_bowl():
    """f(y) = sum (y + 1)^2, convex: its largest value in the box is at the corner where every y is the largest."""
    study = importlib.import_module("study_batch_size")
    x = {"a": owl.from_numpy(np.float32([0.0, 3.0])), "b": owl.from_numpy(np.float32([[-1.0]]))}
    width = study.box(x, 0.25)
    np.testing.assert_array_equal(width["a"].to_numpy(), [0.25, 1.0])
    np.testing.assert_array_equal(width["b"].to_numpy(), [[0.5]])
    found = study.rise(lambda y: (owl.square(y["a"] + 1.0).sum() + owl.square(y["b"] + 1.0).sum()), width)
    assert found == pytest.approx(100 * (1.25**2 + 2**2 + 1.5**2 - 3) / (1 + 3), rel=1e-6)


def test_the_sharpness_of_a_network():
    """Against NumPy in float64: no point of the box that is tried at random is higher; the parameters stay as they were."""
    study = importlib.import_module("study_batch_size")
    owl.seed(3)
    model = owl.nn.Linear(5, 3)
    rng = np.random.default_rng(0)
    data = owl.data.ArrayDataset(rng.standard_normal((40, 5), np.float32), rng.integers(0, 3, 40).astype(np.int32))
    before = {name: x.to_numpy() for name, x in model.parameters().items()}
    found = study.sharpness(model, data, seed=1)
    for name, x in model.parameters().items():
        np.testing.assert_array_equal(x.to_numpy(), before[name])

    def loss(w, b):
        logits = data.arrays[0] @ w + b
        return (np.log(np.exp(logits).sum(1)) - logits[np.arange(40), data.arrays[1]]).mean()

    w, b = (before[name].astype(float) for name in ("weight", "bias"))
    w = w.T if w.shape == (3, 5) else w
    for epsilon, sharp in zip(study.EPSILONS, found["sharpness"]):
        corners = [loss(w + epsilon * (abs(w) + 1) * rng.choice([-1, 1], w.shape), b + epsilon * (abs(b) + 1) * rng.choice([-1, 1], 3))
                   for _ in range(300)]  # fmt: skip
        highest = 100 * (max(corners) - loss(w, b)) / (1 + loss(w, b))
        assert highest * 0.99 <= sharp < 3 * highest
    assert len(found["sharpness_subspace"]) == 2


# ---- Text -------------------------------------------------------------------------------------------------------------

CHAR_LSTM = APPS.parent / "text" / "char_lstm.py"
FOX = "The quick brown fox jumps over the lazy dog.\n" * 150


def char_lstm(*options):
    words = [sys.executable, str(CHAR_LSTM), *map(str, options)]
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def fox(tmp_path_factory):
    """Options for a small network over a text that repeats itself, and the folder of the text."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "fox.txt").write_text(FOX)
    return folder, ("--text", folder / "fox.txt", "--unit", 32, "--length", 24, "--batchsize", 8, "--sample", 60)


def test_char_lstm_learns_a_text_by_heart(fox, tmp_path):
    done = char_lstm(*fox[1], "--epoch", 4, "--temperature", 0.1, "--start", "The ", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6,750 characters, 30 different ones; 128 steps of 8 x 24 characters\nlayer ")
    rows = re.findall(r"^epoch (\d)/4: loss ([\d.]+), accuracy [\d.]+, val_loss ([\d.]+), val_accuracy ([\d.]+)", done.stdout, re.M)
    assert [row[0] for row in rows] == list("1234") and float(rows[-1][3]) > 0.9
    bits = re.findall(r"^([\d.]+) bits a character in validation. The network writes:\n  \| The ", done.stdout, re.M)
    assert float(bits[-1]) == pytest.approx(float(rows[-1][2]) / np.log(2), abs=2e-3)
    sample = done.stdout.split("The network writes:\n")[-1].split("\n\n")[0]
    assert sample.replace("  | ", "").startswith((FOX[:45] * 2)[:60])
    assert drawn(tmp_path / "history.png", done.stdout)


def test_char_lstm_goes_on_with_the_same_bits(fox, tmp_path):
    """Samples are drawn between the steps of the one, and others of the other: they are no part of the training."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert char_lstm(*fox[1], "--epoch", 2, "--out", whole, "--sample", 3).returncode == 0
    cut = char_lstm(*fox[1], "--epoch", 2, "--out", parts, "--max-steps", 37)  # 32 steps an epoch
    assert cut.returncode == 0
    assert f"\nstopped after 37 steps; --resume {parts / 'checkpoint.npz'} goes on there\n" in cut.stdout
    again = char_lstm(*fox[1], "--epoch", 2, "--out", parts, "--resume", parts / "checkpoint.npz")
    assert again.returncode == 0 and "\nepoch 2/2: " in again.stdout and "\nepoch 1/2: " not in again.stdout
    assert (parts / "checkpoint.npz").read_bytes() == (whole / "checkpoint.npz").read_bytes()

    (tmp_path / "other.txt").write_text(FOX.replace("q", "Q"))
    other = char_lstm(*fox[1], "--text", tmp_path / "other.txt", "--resume", whole / "checkpoint.npz", "--epoch", 3,
                      "--out", tmp_path)  # fmt: skip
    assert other.returncode == 1
    assert other.stderr == f"char_lstm.py: error: {whole / 'checkpoint.npz'}: of a network for a text with other characters\n"


def test_char_lstm_takes_the_documentation_of_python(tmp_path):
    done = char_lstm("--unit", 4, "--max-steps", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(re.match(r"[\d,]+(?= characters, )", done.stdout)[0].replace(",", "")) > 100_000


def test_char_lstm_says_what_is_wrong(fox, tmp_path, capsys):
    folder, options = fox
    (folder / "latin.txt").write_bytes(b"caf\xe9" * 100)
    (folder / "short.txt").write_text("abc" * 16)
    sys.path.insert(0, str(CHAR_LSTM.parent))
    main = importlib.import_module("char_lstm").main
    for more, message in [
        (["--text", folder / "missing.txt"], "missing.txt"),
        (["--text", folder], "Is a directory"),
        (["--text", folder / "latin.txt"], "latin.txt: not a text in UTF-8: 'utf-8' codec can't decode byte 0xe9 in position 3"),
        (["--text", folder / "short.txt"], "the text has 48 characters; 49 are needed at least"),
        (["--start", "The q#"], "the text has no '#'"),
        (["--resume", folder / "missing.npz"], "missing.npz: no such file"),
        (["--gpu", 99], "GPU"),
    ]:
        assert main([str(option) for option in (*options, "--out", tmp_path, *more)]) == 1
        assert re.fullmatch(rf".*: error: .*{re.escape(message)}.*\n", capsys.readouterr().err)
    for more, message in [(["--epoch", "0"], "--epoch: expected an integer of at least 1, not '0'"),
                          (["--temperature", "0"], "--temperature: expected a number above 0, not '0'"),
                          (["--temperature", "inf"], "--temperature: expected a number above 0, not 'inf'"),
                          (["--start", ""], "--start: expected at least one character")]:  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            main(more)
        assert caught.value.code == 2 and message in capsys.readouterr().err


def test_char_lstm_at_ctrl_c(fox, tmp_path):
    words = [sys.executable, str(CHAR_LSTM), *map(str, fox[1]), "--epoch", "100000", "--out", str(tmp_path)]
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not (line := process.stdout.readline()).startswith("epoch 1/100000"):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in stderr, stderr
    assert f"--resume {tmp_path / 'checkpoint.npz'} goes on there" in stdout and (tmp_path / "checkpoint.npz").exists()


# ---- Digits of scikit-learn -------------------------------------------------------------------------------------------

DIGITS = APPS.parent / "digits" / "digits.py"


def test_digits(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    done = subprocess.run([sys.executable, str(DIGITS), "--epoch", "8"], env=environment(), capture_output=True, text=True,
                          timeout=PATIENCE)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"^([\d.]+) % of 360 test images$", done.stdout, re.M)[1]) > 90
    assert len(re.findall(r"-> \d", done.stdout)) == 5


def test_digits_without_scikit_learn():
    done = without_modules(DIGITS, names=["sklearn", "sklearn.datasets"])
    assert done.returncode == 1
    assert done.stderr == "digits.py: error: the digits are scikit-learn's: pip install scikit-learn\n"


def test_options_of_digits():
    done = subprocess.run([sys.executable, str(DIGITS), "--epoch", "0"], env=environment(), capture_output=True, text=True,
                          timeout=PATIENCE)  # fmt: skip
    assert done.returncode == 2 and "--epoch: expected an integer of at least 1, not '0'" in done.stderr


# ---- The real data --------------------------------------------------------------------------------------------------

REAL = os.path.abspath(os.environ["OWL_DATA"]) if os.environ.get("OWL_DATA") else None


@pytest.mark.skipif(not REAL, reason="OWL_DATA does not name the real MNIST")
def test_one_epoch_of_real_mnist():
    done = succeed("mnist_mlp", "--data", REAL, "--epochs", 1)
    assert float(table_of(done.stdout)[0][2].rstrip("%")) > 90
