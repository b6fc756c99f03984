"""The messages if there is no GPU, or a component is missing. Each case is a separate process."""
import pathlib
import shutil

import pytest

import children
import owl
from conftest import STANDIN

CUDA_IS_BUILT = (pathlib.Path(owl.__file__).parent / "lib" / "libowl_cuda.so").exists()
needs_cuda = pytest.mark.skipif(not CUDA_IS_BUILT, reason="this build of owl has no CUDA backend")
needs_standin = pytest.mark.skipif(not (STANDIN / "libcuda.so.1").exists(), reason="the stand-in is not built")

# Prints the message of the DeviceError; the rest of owl must still work.
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


LIBRARIES = [STANDIN / name for name in
             ("libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libnccl.so.2")]


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
def test_a_gpu_that_is_too_old():
    text = message("libcuda.so.1", "libnvrtc.so.13", env={"STANDIN_CUDA_CAPABILITY": "70"})
    assert "compute capability 7.0; owl needs 7.5 or newer" in text


@needs_cuda
@needs_standin
def test_a_cudnn_for_another_cuda():
    done = children.run("""
        import ctypes, sys
        for library in sys.argv[1:]:
            ctypes.CDLL(library)
        import owl
        owl.set_device(owl.create_gpu_device(0))
        for _ in range(2):
            y = owl.conv.Convolver(0, 0, 1, 1).ff(owl.ones([5, 5, 1, 1]), owl.ones([3, 3, 1, 2]), owl.zeros([2]))
            try:
                y.wait_for_eval()
            except owl.DeviceError as e:
                print(e)
        assert (owl.ones([3]) + 1).to_numpy().tolist() == [2, 2, 2]
    """, *LIBRARIES, env={"STANDIN_CUDNN_CUDART": "12090"})
    assert done.stdout.count("libcudnn.so.9 cannot be used: the one found is for CUDA 12, owl needs one for CUDA") == 2


# Kernels on disk, and only CUDA's driver in the process: owl opens NVRTC when it needs a new kernel.
START = """
import ctypes, sys
driver = ctypes.CDLL(sys.argv[1])
driver.standin_count.restype = ctypes.c_longlong
import owl, owl._cuda
owl._cuda.library_folders = lambda: sys.argv[2:3]
owl.set_device(owl.create_gpu_device(0))
x = owl.ones([3, 5])
for f in (owl.elewise.tanh, owl.elewise.exp)[:int(sys.argv[3])]:
    x = f(x) * 2
    print(float(x.sum()))
print("opened" if "libnvrtc" in open("/proc/self/maps").read() else "not opened")
print(driver.standin_count(b"nvrtcCompileProgram"), "compiled")
"""


@needs_cuda
@needs_standin
def test_kernels_on_disk_need_no_compiler(tmp_path):
    cache, folder = tmp_path / "cache", tmp_path / "libraries"
    folder.mkdir()
    for name in ("libnvrtc.so.13", "libcuda.so.1"):  # libnvrtc finds the driver beside it
        shutil.copy(STANDIN / name, folder)

    def start(count):
        return children.run(START, folder / "libcuda.so.1", folder, count, env={"XDG_CACHE_HOME": str(cache)}).stdout

    first = start(1)
    assert "\nopened" in first
    note = cache / "owl" / "kernels" / "nvrtc"
    assert str(folder) in note.read_text()
    again = start(1)
    assert "not opened" in again and "\n0 compiled" in again and again.splitlines()[0] == first.splitlines()[0]
    assert "\nopened" in start(2)  # a kernel that is not on disk yet
    (folder / "libcuda.so.1").touch()  # its functions: owl takes it for another file
    assert "\nopened" in start(1)
    note.write_text("nonsense")
    assert "\nopened" in start(1)


@needs_cuda
@needs_standin
def test_no_nvrtc(tmp_path):
    text = message("libcuda.so.1", env={"XDG_CACHE_HOME": str(tmp_path)})
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
