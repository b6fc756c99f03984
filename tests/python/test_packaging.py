"""owl as a package: the modules that it imports, and the C++ files as other projects use them."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import owl

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))


def python(script, **environment):
    """Runs a script, whose last line of output is JSON, in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ---- the import


def test_import_needs_numpy_and_nothing_else():
    brought = python(
        "import sys, json, numpy; before = set(sys.modules)\n"
        "import owl; print(json.dumps(sorted({m.partition('.')[0] for m in set(sys.modules) - before})))"
    )
    assert "owl" in brought
    assert set(brought) - set(sys.stdlib_module_names) <= {"numpy", "owl", "ml_dtypes"}  # the last where it is installed


def test_import_loads_nothing_that_only_downloads_and_training_need():
    loaded = python("import sys, json, numpy; import owl; print(json.dumps(sorted(sys.modules)))")
    for heavy in ("owl.data", "pooch", "requests", "http.client", "asyncio", "tqdm", "scipy", "multiprocessing"):
        before = python(f"import sys, json, numpy; print(json.dumps({heavy!r} in sys.modules))")
        assert before or heavy not in loaded


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
def test_no_threads_before_first_use():
    counts = python(
        "import os, json, numpy\n"
        "def threads(): return len(os.listdir('/proc/self/task'))\n"
        "counts = [threads()]\n"
        "import owl\n"
        "counts.append(threads())\n"
        "owl.create_cpu_device(); owl.seed(1); owl.stats(); owl.devices()\n"
        "counts.append(threads())\n"
        "x = owl.randn([1000, 1000]); (x * x).to_numpy()\n"
        "counts.append(threads())\n"
        "print(json.dumps(counts))"
    )
    before, imported, asked, used = counts
    assert imported == before
    assert asked == before
    assert used > before  # else nothing was measured


def test_only_numpy_is_required():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r"^dependencies = (.*)", text, re.MULTILINE)[1] == '["numpy>=1.23"]'
    extra = re.search(r"^apps = (.*)", text, re.MULTILINE)[1]
    assert "pooch" in extra and "tqdm" in extra


# ---- the C++ side


@pytest.fixture(scope="module")
def cmake():
    if not (BUILD / "CMakeCache.txt").exists():
        pytest.skip(f"{BUILD} is not a build folder: make build")
    beside = pathlib.Path(sys.executable).with_name("cmake")
    found = str(beside) if beside.exists() else shutil.which("cmake")
    if not found:
        pytest.skip("no cmake")
    return found


@pytest.fixture(scope="module")
def installed(cmake, tmp_path_factory):
    """A prefix with the component `cpp`, moved after installation: its files must not contain the old path."""
    first = tmp_path_factory.mktemp("first") / "prefix"
    run(cmake, "--install", BUILD, "--component", "cpp", "--prefix", first)
    moved = tmp_path_factory.mktemp("second") / "moved"
    first.rename(moved)
    return moved


def test_installed_files(installed):
    files = {str(f.relative_to(installed)) for f in installed.rglob("*") if not f.is_dir()}
    headers = {f"include/owl/{h.name}" for h in (ROOT / "cpp/include/owl").glob("*.h")}
    assert headers <= files
    named = {pathlib.PurePath(f).name for f in files}
    assert {"owlConfig.cmake", "owlConfigVersion.cmake", "owl.pc", "libdnnl.so.3", "libowl.so"} <= named
    assert any(re.fullmatch(r"libowl\.so\.\d+(\.\d+)?", name) for name in named)
    text = "".join(f.read_text() for f in [*installed.rglob("*.cmake"), *installed.rglob("*.pc")])
    assert str(ROOT) not in text and "prefix" + os.sep not in text


def test_headers_compile_alone(installed, tmp_path):
    """Each public header includes what it needs, and no internal header."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not compiler:
        pytest.skip("no C++ compiler")
    for header in sorted((installed / "include/owl").glob("*.h")):
        source = tmp_path / "one.cpp"
        source.write_text(f'#include "owl/{header.name}"\n')
        run(compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-I", installed / "include", source)


def test_only_the_api_is_exported(installed):
    nm = shutil.which("nm")
    if not nm:
        pytest.skip("no nm")
    library = next(f for f in installed.rglob("libowl.so.*") if not f.is_symlink())
    names = [line.split()[-1] for line in run(nm, "-D", "--defined-only", library).splitlines()]
    assert names
    assert [n for n in names if not re.match(r"_Z(N|NK|TIN|TSN|TVN)3owl", n)] == []
    # Classes of the engine that are in no public header, and names that only the programs and the module need.
    assert [n for n in names if "9Scheduler3add" in n or "7Planner" in n or "digits" in n] == []


def test_external_project(cmake, installed, tmp_path):
    """examples/cpp, copied out of the tree, finds the package, builds and runs."""
    source = tmp_path / "example"
    shutil.copytree(ROOT / "examples/cpp", source)
    generator = ["-G", "Ninja"] if importlib.util.find_spec("ninja") or shutil.which("ninja") else []
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    run(
        cmake, "-S", source, "-B", tmp_path / "build", *generator, "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_PREFIX_PATH={installed}", cwd=tmp_path, env=environment,
    )  # fmt: skip
    log = run(cmake, "--build", tmp_path / "build", "--verbose", cwd=tmp_path, env=environment)
    assert str(ROOT / "cpp") not in log and str(BUILD) not in log
    away = tmp_path / "elsewhere"
    away.mkdir()
    out = run(tmp_path / "build/circle", cwd=away)
    accuracies = [float(m) for m in re.findall(r"accuracy ([0-9.]+)", out)]
    assert len(accuracies) == 5 and accuracies[-1] > 0.95 > accuracies[0], out


SMALL = '#include <owl/owl.h>\n#include <cstdio>\n' \
        'int main() { std::printf("%g\\n", owl::from_host({1.f, 2.f}, {2}).sum().item()); }\n'


def build_and_run(tmp_path, *options):
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not compiler:
        pytest.skip("no C++ compiler")
    (tmp_path / "small.cpp").write_text(SMALL)
    run(compiler, "-std=c++20", tmp_path / "small.cpp", "-o", tmp_path / "small", *options)
    assert run(tmp_path / "small", cwd=tmp_path) == "3\n"


@pytest.fixture(params=["link", "linker script"])
def library(request, installed, tmp_path):
    """The prefix; once with libowl.so as in a wheel, which cannot contain links."""
    if request.param == "link":
        return installed
    prefix = tmp_path / "wheel"
    shutil.copytree(installed, prefix, symlinks=True)
    (found,) = prefix.rglob("libowl.so")
    found.unlink()
    shutil.copy(BUILD / "wheel/libowl.so", found)
    return prefix


def test_a_program_links_without_cmake(library, tmp_path):
    folder = next(library.rglob("libowl.so")).parent
    build_and_run(tmp_path, "-I", library / "include", "-L", folder, f"-Wl,-rpath,{folder}", "-lowl")


def test_pkg_config(library, tmp_path):
    tool = shutil.which("pkg-config") or shutil.which("pkgconf")
    if not tool:
        pytest.skip("no pkg-config")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(next(library.rglob("owl.pc")).parent)}
    assert run(tool, "--modversion", "owl", env=environment).strip() == owl.__version__
    build_and_run(tmp_path, *run(tool, "--cflags", "--libs", "owl", env=environment).split())


def test_package_refuses_another_minor_version(cmake, installed, tmp_path):
    major, minor = owl.__version__.split(".")[:2]
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\nproject(ask LANGUAGES NONE)\n"
        f"find_package(owl {major}.{int(minor) + 1} QUIET)\n"
        'message(STATUS "newer: ${owl_FOUND}")\n'
        f"find_package(owl {major}.{minor} REQUIRED)\n"
        'message(STATUS "this: ${owl_FOUND} ${owl_VERSION}")\n'
    )
    out = run(cmake, "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    assert "newer: 0" in out
    assert f"this: 1 {owl.__version__}" in out


def test_module_and_programs_share_one_engine(cmake):
    """The module contains no engine: it loads libowl from the folder beside it."""
    maps = python(
        "import json, owl; print(json.dumps([l.split()[-1] for l in open('/proc/self/maps') if '/libowl.so' in l]))"
    )
    folder = pathlib.Path(owl.__file__).resolve().parent / "lib"
    assert {pathlib.Path(m).parent for m in maps} == {folder}


def test_cmake_dir():
    folder = pathlib.Path(owl.__file__).parent / "lib/cmake/owl"
    done = subprocess.run([sys.executable, "-m", "owl", "--cmake-dir"], capture_output=True, text=True, timeout=120)
    if folder.exists():
        assert done.stdout.strip() == str(folder) == owl.get_cmake_dir()
    else:  # a checkout
        assert done.returncode == 1 and "cmake --install" in done.stderr
        assert subprocess.run([sys.executable, "-m", "owl", "--lib-dir"], capture_output=True, timeout=120).returncode == 1
        with pytest.raises(owl.Error, match="cmake --install"):
            owl.get_cmake_dir()


def test_folders_of_the_cpp_side(installed, tmp_path):
    """As in a wheel, where the package folder is the prefix."""
    package = tmp_path / "owl"
    shutil.copytree(installed, package)
    for file in [*pathlib.Path(owl.__file__).parent.glob("*.py"), pathlib.Path(owl._owl.__file__)]:
        shutil.copy(file, package)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for option, holds in (("--include-dir", "owl/owl.h"), ("--lib-dir", "libowl.so"), ("--cmake-dir", "owlConfig.cmake"),
                          ("--pkg-config-dir", "owl.pc")):  # fmt: skip
        folder = pathlib.Path(run(sys.executable, "-m", "owl", option, cwd=tmp_path, env=environment).strip())
        assert (folder / holds).exists() and folder.is_relative_to(package), option


def test_command_line():
    out = run(sys.executable, "-m", "owl")
    assert out.startswith(f"owl {owl.__version__} in ") and "device 0: CPU" in out
    assert run(sys.executable, "-m", "owl", "--version") == f"owl {owl.__version__}\n"
