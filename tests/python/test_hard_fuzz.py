"""Every public name, called with random arguments, raises only Python exceptions, and the engine goes on."""
import pathlib

import children

FUZZ = pathlib.Path(__file__).with_name("fuzz_calls.py")


def test_calls_with_anything():
    for seed in range(1, 1 + children.scaled(1, 10)):
        done = children.run(FUZZ.read_text(), seed, 5000, timeout=150)
        assert done.stdout.splitlines()[-1] == "good", done.stdout


def test_arguments_that_change_while_they_are_read():
    children.run("""
        import owl
        class Clears:
            def __index__(self):
                shape.clear()
                return 3
        class Grows:
            def __index__(self):
                shape.append(1)
                return 1
        for _ in range(100):
            shape = [2, Clears(), 5, 6, 7]
            assert owl.ones(shape).shape == [2, 3]
            shape = [Grows(), Grows()]
            assert owl.ones(shape).shape == [1, 1, 1, 1]
            shape = [0, Clears(), 1]
            try:
                owl.ones([1, 1, 1, 1]).transpose(shape)
                assert False
            except owl.ShapeError:
                pass
    """)


def test_names_that_are_no_text():
    children.run(r"""
        import owl
        x = owl.ones([2])
        for call in (lambda: owl.zeros([2], **{"\ud800": 1}), lambda: owl.zeros([2], dtype="\ud800"),
                     lambda: x["\ud800"], lambda: x.__dlpack__(max_version="\ud800"),
                     lambda: x.__dlpack__(dl_device=1.5),
                     lambda: x.__dlpack__(dl_device=(1,)), lambda: x.__dlpack__(max_version=object())):
            try:
                call()
                assert False
            except (TypeError, ValueError) as e:
                assert "C++" not in str(e), e
    """)
