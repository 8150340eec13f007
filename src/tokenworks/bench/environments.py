"""A Python environment for each peer that comes as a package, made once and kept: nothing of a peer touches ours.

It lies in `cache/bench/` of the data folder, under the name and version of what is in it. Made with `uv` where that is
installed, else with `venv` and pip; whatever these say about the package index holds here, too.
"""

import os
import shutil
import sys
from pathlib import Path

from tokenworks.base import config, processes
from tokenworks.base.processes import Program, StartFault

_FOR_PYTHON = ("PYTHON", "VIRTUAL_ENV", config.PREFIX)
_DONE = "complete"


async def programs(cache: Path, requirement: str) -> Path:
    """The folder of the programs of a package such as `name[extra]==1.0`, which is installed now if it is not yet."""
    folder = cache / folder_name(requirement)
    if not is_there(cache, requirement):
        # What an earlier try has left is not worth keeping.
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for argv in commands(folder, requirement, shutil.which("uv")):
            await _done(requirement, argv)
        (folder / _DONE).touch()
    return folder / "bin"


def is_there(cache: Path, requirement: str) -> bool:
    """Whether it is installed already."""
    return (cache / folder_name(requirement) / _DONE).exists()


def folder_name(requirement: str) -> str:
    """`litellm[proxy]==1.0` → `litellm-proxy-1.0`."""
    return requirement.replace("]==", "-").replace("==", "-").replace("[", "-")


def commands(folder: Path, requirement: str, uv: str | None) -> list[tuple[str, ...]]:
    """What makes an environment with a package in it."""
    python = str(folder / "bin" / "python")
    if uv is not None:
        return [
            (uv, "venv", "--quiet", "--python", sys.executable, str(folder)),
            (uv, "pip", "install", "--quiet", "--python", python, requirement),
        ]
    return [
        (sys.executable, "-m", "venv", str(folder)),
        (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement),
    ]


async def _done(requirement: str, argv: tuple[str, ...]) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOR_PYTHON)}
    code, said = await processes.run(Program(argv=argv, environ=environ))
    if code != 0:
        lines = said.strip().splitlines() or [processes.how_it_ended(code)]
        raise StartFault(f"{requirement} cannot be installed: {lines[-1]}")
