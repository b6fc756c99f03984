"""docs/dtypes.md is true: computes every cell of its tables."""

import re
from pathlib import Path

import numpy as np
import pytest

import owl
import reference
from reference import DTYPES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dtypes.md"
NUMBERS = {"bool": True, "int": 1, "float": 1.0, "np.bool_": np.bool_(True), "np.int8": np.int8(1),
           "np.int32": np.int32(1), "np.int64": np.int64(1), "np.uint32": np.uint32(1), "np.float16": np.float16(1),
           "np.float32": np.float32(1), "np.float64": np.float64(1)}


def tables():
    """(section, heading or None, header cells, rows of cells) of every table of the page."""
    section = heading = None
    rows = []
    found = []
    for line in [*PAGE.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if set("".join(cells)) != {"-"}:
                rows.append(cells)
            continue
        if rows:
            found.append((section, heading, rows[0], rows[1:]))
            rows = []
        if line.startswith("## "):
            section, heading = line[3:], None
        elif line.startswith("### "):
            heading = line[4:]
    return found


def by_section(name):
    return [table for table in tables() if table[0] == name]


def cases(name):
    """(expression, row's type or None, column, expected) of each cell of a section."""
    for _, heading, header, rows in by_section(name):
        for first, *cells in rows:
            assert len(cells) == len(header) - 1, first
            for column, expected in zip(header[1:], cells):
                if heading:
                    for expression in re.findall(r"`([^`]+)`", heading):
                        yield expression, first, column, expected
                else:
                    yield first.strip("`"), None, column, expected


def array(dtype, shape=(2, 2)):
    return owl.ones(list(shape), dtype)


def evaluate(expression, **names):
    return eval(expression, {**vars(owl), "conv": owl.conv, "elewise": owl.elewise, **names})


def check(expression, expected, **names):
    if expected == "DTypeError":
        with pytest.raises(owl.DTypeError):
            evaluate(expression, **names)
        return
    if expected == "bfloat16" and reference.bfloat16 is None:
        pytest.skip("ml_dtypes is not installed")
    got = evaluate(expression, **names)
    assert got.dtype.name == expected
    assert got.to_numpy().dtype.name == expected


def ids(values):
    return ["|".join(str(part) for part in value[:3]) for value in values]


def each(name):
    values = list(cases(name))
    assert values, name
    return pytest.mark.parametrize("expression, row, column, expected", values, ids=ids(values))


@each("Two arrays")
def test_two_arrays(expression, row, column, expected):
    check(expression, expected, x=array(row), y=array(column), c=array("bool"))


@each("An array and a number")
def test_an_array_and_a_number(expression, row, column, expected):
    number = NUMBERS[column]
    check(expression, expected, x=array(row), n=number, c=array("bool"))
    check(expression, expected, x=number, n=array(row), c=array("bool"))  # the other way round


@each("Functions of one array")
def test_functions(expression, row, column, expected):
    check(expression, expected, x=array(column))


@each("Reductions")
def test_reductions(expression, row, column, expected):
    check(expression, expected, x=array(column))


@each("Networks")
def test_networks(expression, row, column, expected):
    check(expression, expected, v=array(column), image=array(column, (4, 4, 2, 3)),
          weight=array(column, (1, 1, 2, 2)), bias=array(column, (2,)), convolver=owl.conv.Convolver(),
          pooler=owl.conv.Pooler(1, 1, 1, 1), average_pooler=owl.conv.Pooler(1, 1, 1, 1, op=owl.conv.pool_op.avg),
          lrner=owl.conv.Lrner(3, 1e-4, 0.75))


@each("Making arrays")
def test_making_arrays(expression, row, column, expected):
    check(expression, expected, t=column)
    if "dtype=t" in expression:
        assert evaluate(expression.replace(", dtype=t", "")).dtype == np.float32


def from_numpy_rows():
    ((_, _, _, rows),) = by_section("From NumPy")
    return rows


@pytest.mark.parametrize("dtype, expected", from_numpy_rows())
def test_from_numpy(dtype, expected):
    a = np.ones(2, dtype=reference.bfloat16 if dtype == "bfloat16" else dtype)
    if expected == "DTypeError":
        with pytest.raises(owl.DTypeError):
            owl.from_numpy(a)
    else:
        assert owl.from_numpy(a).dtype.name == expected
    if dtype in ("int64", "uint32", "uint64"):
        largest = owl.from_numpy(np.array([1, np.iinfo(dtype).max], dtype))
        assert largest.dtype == (np.float64 if dtype == "uint64" else np.int64)
        assert largest[1].item() == float(2**64) if dtype == "uint64" else np.iinfo(dtype).max


def test_sentences():
    x = owl.ones([2], "int32")
    assert (x < 2**31).to_numpy().all()
    for operation in ("x + n", "x * n", "n - x", "elewise.maximum(x, n)"):
        with pytest.raises(OverflowError, match="2147483648"):
            evaluate(operation, x=x, n=2**31)
    with pytest.raises(owl.DTypeError):
        x ** -1
    assert (x**-1.0).dtype == np.float32
    assert (owl.full([1], 2**31 - 1, "int32") + 1).item() == -(2**31)
    assert owl.full([2], 2**30, "int32").sum().item() == -(2**31)
    both = owl.from_numpy(np.array([False, True]))
    assert (both + both).to_numpy().tolist() == [False, True]
    assert owl.elewise.where(owl.from_numpy(np.array([0.5, 0.0])), 1.0, x).to_numpy().tolist() == [1.0, 1.0]
    assert owl.elewise.clip(x, 0, 1.5).dtype == np.float32
    assert owl.concat([x, both], 0).dtype == np.int32
    assert owl.full([1], -2.7).astype("int32").item() == -2 and owl.full([1], 0.2).astype(bool).item() is True
    assert type(x.count_zero()) is int
    with pytest.raises(owl.DTypeError):
        owl.from_dlpack(np.ones(2, np.int16))


# Operations that are recorded by themselves, wait for their value, keep the type of what several devices hold, or have no
# name in Python.
IN_NO_TABLE = {"copy", "device_copy", "count_zero", "all_reduce", "place_views", "add_views", "layer_norm_back", "log_softmax_back"}


def recorded_by_the_tables():
    """The names of the operations that the tables' expressions record, of float32 arrays, or of int32 where they are refused."""
    x, image = array("float32"), array("float32", (4, 4, 2, 3))
    names = dict(x=x, y=x, v=x, n=2.0, t="float32", c=array("bool"), image=image, weight=array("float32", (1, 1, 2, 2)),
                 bias=array("float32", (2,)), convolver=owl.conv.Convolver(), pooler=owl.conv.Pooler(1, 1, 1, 1),
                 average_pooler=owl.conv.Pooler(1, 1, 1, 1, op=owl.conv.pool_op.avg), lrner=owl.conv.Lrner(3, 1e-4, 0.75))  # fmt: skip
    expressions = {case[0] for section in {table[0] for table in tables()} - {"From NumPy"} for case in cases(section)}
    results = []
    hold = owl._owl.HoldWindow()
    try:
        for expression in sorted(expressions):
            try:
                results.append(evaluate(expression, **names))
            except owl.DTypeError:
                ints = {"x": array("int32"), "y": array("int32"), "n": 2}
                results.append(evaluate(expression, **{**names, **ints}))
        return set(re.findall(r'label="(\w+)\\n', owl.draw(results)))
    finally:
        hold.release()


def test_every_operation_is_in_a_table():
    operations = {op["name"] for op in owl._owl.ops()}
    assert operations - recorded_by_the_tables() == IN_NO_TABLE


def test_the_tables_are_complete():
    types = list(DTYPES)
    for section, heading, header, rows in tables():
        if section == "From NumPy":
            assert {row[0] for row in rows} >= {"bool", *(f"{kind}{n}" for kind in ("int", "uint") for n in (8, 16, 32, 64))}
        elif section == "An array and a number":
            assert header[1:] == list(NUMBERS) and [row[0] for row in rows] == types, heading
        else:
            assert header[1:] == types, section
            assert not heading or [row[0] for row in rows] == types, heading
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in owl.elewise.__all__ if f"elewise.{name}(" not in text]
    assert missing == []
    for symbol in ("+", "-", "*", "/", "//", "%", "&", "|", "^", "**", ">", ">=", "<", "<=", "==", "!="):
        for other in "yn":
            assert f"`x {symbol} {other}`" in text, symbol
    for name in ("sum", "prod", "mean", "max", "min", "var", "std", "any", "all", "argmax", "argmin"):
        assert f"`x.{name}()`" in text
