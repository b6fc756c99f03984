"""What is said where there is no GPU, or something that a GPU needs is missing. Each case is a process of its own."""
import pathlib
import shutil

import pytest

import children
import owl
from conftest import STANDIN

CUDA_IS_BUILT = (pathlib.Path(owl.__file__).parent / "lib" / "libowl_cuda.so").exists()
needs_cuda = pytest.mark.skipif(not CUDA_IS_BUILT, reason="this build of owl has no CUDA backend")
needs_standin = pytest.mark.skipif(not (STANDIN / "libcuda.so.1").exists(), reason="the stand-in is not built")

# Gives the message of the DeviceError; the rest of owl must work as ever.
ASK = """
import ctypes, sys
for library in sys.argv[1:]:
    ctypes.CDLL(library)
import owl, owl._cuda
owl._cuda.library_folders = lambda: []  # NVIDIA's packages, where they are installed
assert (owl.ones([2]) + 1).to_numpy().tolist() == [2, 2]
try:
    owl.create_gpu_device(0)
except owl.DeviceError as e:
    print(e)
else:
    raise SystemExit("no error")
assert isinstance(owl.get_gpu_device_count(), int)
assert [d.kind for d in owl.devices()] == ["cpu"] and (owl.ones([2]) + 1).to_numpy().tolist() == [2, 2]
"""


def message(*libraries, env=None):
    return children.run(ASK, *[STANDIN / name for name in libraries], env=env).stdout


def driver_is_here():
    import ctypes
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@needs_cuda
@pytest.mark.skipif(driver_is_here(), reason="there is a driver")
def test_no_driver():
    text = message()
    assert "no GPU 0" in text and "libcuda.so.1" in text and "install NVIDIA's driver, 580 or newer" in text
    assert "create_cpu_device()" in text and "OWL_SIMULATED_GPUS=1" in text


@needs_cuda
@needs_standin
def test_a_driver_that_is_too_old():
    text = message("libcuda.so.1", env={"STANDIN_CUDA_DRIVER": "12040"})
    assert "CUDA 12.4" in text and "13.0 or newer" in text and "driver 580 or newer" in text


@needs_cuda
@needs_standin
def test_a_driver_that_finds_no_gpu():
    text = message("libcuda.so.1", env={"STANDIN_CUDA_FAIL": "cuInit:1:100"})
    assert "CUDA does not start" in text and "CUDA_ERROR_NO_DEVICE" in text and "nvidia-smi" in text


@needs_cuda
@needs_standin
def test_no_nvrtc():
    text = message("libcuda.so.1")
    assert "libnvrtc.so.13 cannot be used" in text and "pip install 'owl-engine[cuda]'" in text


@needs_cuda
@needs_standin
def test_a_missing_library_fails_what_needs_it():
    done = children.run("""
        import ctypes, sys
        for library in sys.argv[1:]:
            ctypes.CDLL(library)
        import owl, owl._cuda
        owl._cuda.library_folders = lambda: []
        owl.set_device(owl.create_gpu_device(0))
        x = owl.ones([3, 4])
        y = x * x.T
        try:
            y.wait_for_eval()
        except owl.DeviceError as e:
            assert "libcublasLt.so.13 cannot be used" in str(e) and "user_script.py" in str(e), e
        else:
            raise SystemExit("no error")
        c = owl.conv.Convolver(0, 0, 1, 1).ff(owl.ones([5, 5, 1, 1]), owl.ones([3, 3, 1, 2]), owl.zeros([2]))
        try:
            c.wait_for_eval()
        except owl.DeviceError as e:
            assert "cannot be used" in str(e), e
        else:
            raise SystemExit("no error")
        assert (x.sum() + 1).item() == 13
    """, STANDIN / "libcuda.so.1", STANDIN / "libnvrtc.so.13")
    assert done.returncode == 0


def test_no_cuda_backend_in_the_package(tmp_path):
    package = tmp_path / "owl"
    shutil.copytree(pathlib.Path(owl.__file__).parent, package,
                    ignore=lambda _, names: [n for n in names if n in ("libowl_cuda.so", "__pycache__")])
    text = children.run(ASK, env={"PYTHONPATH": str(tmp_path)}).stdout
    assert "this build of owl has no CUDA backend" in text and "OWL_CUDA=on" in text


@needs_cuda
@needs_standin
def test_an_index_out_of_range():
    done = children.run("""
        import ctypes, sys
        for library in sys.argv[1:]:
            ctypes.CDLL(library)
        import owl
        for index in (2, -1):
            try:
                owl.create_gpu_device(index)
            except owl.DeviceError as e:
                print(e)
        assert owl.get_gpu_device_count() == 2 and owl.has_cuda()
    """, STANDIN / "libcuda.so.1", STANDIN / "libnvrtc.so.13")
    assert "no GPU 2: CUDA shows 2 GPUs here" in done.stdout and "use 0 to 1" in done.stdout
    assert "no GPU -1" in done.stdout
