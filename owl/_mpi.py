"""Which launcher started this process, and the MPI library that belongs to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass

import owl
from owl._owl import DeviceError, _distributed

_INSTALL = "pip install 'owl-engine[mpi]' brings one, with its mpirun"
# The libraries by name, those of the launcher's family first.
_OPEN_MPI, _OTHERS = ("libmpi.so.40",), ("libmpi_abi.so.1", "libmpi_abi.so.0", "libmpi.so.12")


@dataclass
class Launcher:
    """What the environment tells of the job."""

    name: str
    variable: str  # that tells the size
    size: int | None  # None: only MPI knows
    open_mpi: bool | None  # whether it is Open MPI's; None: it may serve any library


def launcher() -> Launcher | None:
    """The launcher that started this process; None: it was started alone."""
    get = os.environ.get
    if "OMPI_COMM_WORLD_SIZE" in os.environ:
        return Launcher("Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", _integer("OMPI_COMM_WORLD_SIZE"), True)
    if "PMI_SIZE" in os.environ:
        slurm = "SLURM_STEP_ID" in os.environ
        return Launcher("srun" if slurm else "MPICH's mpirun", "PMI_SIZE", _integer("PMI_SIZE"), None if slurm else False)
    if "PMIX_RANK" in os.environ:
        size = _integer("SLURM_STEP_NUM_TASKS") if "SLURM_STEP_NUM_TASKS" in os.environ else None
        return Launcher("a PMIx launcher", "SLURM_STEP_NUM_TASKS" if size else "PMIX_RANK", size, None)
    tasks = _integer("SLURM_STEP_NUM_TASKS") if get("SLURM_STEP_NUM_TASKS") and get("SLURM_PROCID") else 1
    if tasks > 1:
        raise DeviceError(f"srun started {tasks} processes without MPI, so that they do not know of each other; "
                          "use srun --mpi=pmix or --mpi=pmi2 (srun --mpi=list shows which there are)")  # fmt: skip
    return None


def start(found: Launcher, warn_after: float) -> tuple[int, int]:
    """Starts MPI: this process's rank, and the number of ranks."""
    family, version, path = _open(found)
    described = f"{version} ({path})"
    if found.open_mpi is True and family != "Open MPI" or found.open_mpi is False and family == "Open MPI":
        raise _mismatch(found, described)
    rank, size = _distributed.start(path, warn_after, owl.__version__)
    if size == 1 and found.size is not None and found.size > 1:
        raise _mismatch(found, described)
    return rank, size


def _mismatch(found: Launcher, library: str) -> DeviceError:
    size = "several processes" if found.size is None else f"{found.size} processes ({found.variable}={found.size})"
    return DeviceError(f"the launcher and MPI's library do not belong together: {found.name} started {size}, but the "
                       f"library is {library}, in which every process would be rank 0 of 1. Use the mpirun of the "
                       "library's package, or name the launcher's library by OWL_MPI=path")  # fmt: skip


def _open(found: Launcher) -> tuple[str, str, str]:
    """Family, version and path of the library."""
    failed: list[str] = []
    for path in _candidates(found):
        try:
            return _distributed.open(path)  # type: ignore[no-any-return]
        except DeviceError as error:
            failed.append(str(error))
    size = "" if found.size is None else f" ({found.variable}={found.size})"
    raise DeviceError(f"{found.name} started this process{size}, but there is no MPI library: {_INSTALL}, and OWL_MPI names "
                      f"one by its file or folder. {failed[0] if failed else ''}")  # fmt: skip


def _candidates(found: Launcher) -> list[str]:
    names = _OTHERS + _OPEN_MPI if found.open_mpi is False else _OPEN_MPI + _OTHERS
    named = os.environ.get("OWL_MPI")
    if named:
        return [os.path.join(named, name) for name in names + ("libmpi.so",)
                if os.path.exists(os.path.join(named, name))] if os.path.isdir(named) else [named]  # fmt: skip
    folders = [os.environ["OMPI_LIBDIR_LOC"]] if "OMPI_LIBDIR_LOC" in os.environ else []
    folders += [os.path.join(os.path.dirname(os.path.dirname(program)), "lib") for program in _launchers()]
    folders.append(os.path.join(sys.prefix, "lib"))
    paths = [os.path.join(folder, name) for name in names for folder in folders]
    return [path for path in paths if os.path.exists(path)] + list(names)


def _launchers() -> list[str]:
    """Where the launcher's programs are: the one that started this process, and mpirun."""
    found = []
    with contextlib.suppress(OSError):
        found.append(os.readlink(f"/proc/{os.getppid()}/exe"))
    mpirun = shutil.which("mpirun")
    return found + ([os.path.realpath(mpirun), os.path.abspath(mpirun)] if mpirun else [])


def _integer(variable: str) -> int:
    try:
        return int(os.environ[variable])
    except ValueError:
        return 1
