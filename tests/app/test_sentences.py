"""What an operator is told when the machine says no."""

import errno
import os

import pytest

from tokenworks.app.up import sentence
from tokenworks.base.processes import StartFault, how_it_ended


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(errno.ENOSPC, "", "/data/x"), "the disk is full: no space to write /data/x"),
        (OSError(errno.EDQUOT, ""), "the disk is full: no space to write the data folder"),
        (
            PermissionError(errno.EACCES, "", "/data"),
            "no permission to use /data; change its owner or set TOKENWORKS_DATA_DIR",
        ),
        (NotADirectoryError(errno.ENOTDIR, "", "/data"), "cannot use /data: not a directory"),
        (OSError("something odd"), "something odd"),
        (StartFault("it is so"), "it is so"),
    ],
)
def test_a_fault_becomes_one_sentence(fault: Exception, said: str) -> None:
    assert sentence(fault) == said


@pytest.mark.parametrize(("code", "said"), [(0, "exit code 0"), (-9, "killed by SIGKILL"), (None, "still running")])
def test_how_a_process_ended(code: int | None, said: str) -> None:
    assert how_it_ended(code) == said


def test_every_number_of_the_kernel_has_a_sentence() -> None:
    assert [number for number in errno.errorcode if not sentence(OSError(number, os.strerror(number)))] == []
