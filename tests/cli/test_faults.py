"""What a command says when it cannot do what was asked: one sentence, a hint, an exit code, and nothing on stdout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.terminal import Terminal
from tokenworks.base.config import Settings

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def nowhere(tmp_path: Path) -> Terminal:
    return Terminal({"TOKENWORKS_DATA_DIR": str(tmp_path), "TOKENWORKS_OFFICE_PORT": "1"})


@pytest.mark.parametrize(
    "words",
    [
        ["customers"],
        ["keys", "--json"],
        ["usage", "list", "--json"],
        ["offers", "show", "x"],
        ["customers", "list", "--office", NOBODY],
        ["customers", "list", "--office", "no address"],
    ],
)
def test_an_office_that_is_not_there_is_3_and_says_how_to_start_it(nowhere: Terminal, words: list[str]) -> None:
    said = nowhere.run(*words)
    assert (said.code, said.out) == (3, "")
    sentence, hint = said.err.splitlines()
    assert sentence.startswith("tokenworks: ")
    assert "tokenworks up" in hint


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["offers", "add", "x", "--name", "X", "--price", "9,9", "--grant", "1", "--tariff", "t"], "'9,9'"),
        (["tariffs", "add", "t", "--rate", "1000000"], "names no model"),
        (
            ["endpoints", "add", "u", "--supplier", "s", "--model", "m", "--input-price", "-1", "--output-price", "1"],
            "-1",
        ),
        (["verify", "--data", "a", "--database", "b"], "exclude each other"),
    ],
)
def test_a_wrong_value_is_2_before_anything_is_sent(nowhere: Terminal, words: list[str], sentence: str) -> None:
    said = nowhere.run(*words)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["custmers"], "Did you mean 'customers'?"),
        (["customers", "add"], "Missing argument"),
        (["orders", "add", "--customer", "c"], "Missing option '--offer'"),
        (["usage", "--limit", "0"], "--limit"),
        (["customers", "add", "n", "--phone", "1", "--kind", "robot"], "--kind"),
    ],
)
def test_wrong_use_is_2_and_says_what_is_missing(nowhere: Terminal, words: list[str], sentence: str) -> None:
    said = nowhere.run(*words)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err


@pytest.mark.parametrize("words", [["customers"], ["up"], ["demo"], ["verify"]])
def test_a_bad_setting_is_2_and_is_named(tmp_path: Path, words: list[str]) -> None:
    said = Terminal({"TOKENWORKS_DATA_DIR": str(tmp_path), "TOKENWORKS_WORKERS": "none"}).run(*words)
    assert (said.code, said.out) == (2, "")
    assert "TOKENWORKS_WORKERS" in said.err


def test_verify_of_a_folder_without_data_is_3_and_creates_nothing(tmp_path: Path) -> None:
    said = Terminal({}).run("verify", "--data", str(tmp_path / "nothing"), "--json")
    assert (said.code, said.out) == (3, "")
    assert "no database" in said.err
    assert not (tmp_path / "nothing").exists()


def test_verify_of_a_database_that_cannot_be_reached_is_3() -> None:
    said = Terminal({}).run("verify", "--database", "postgresql://127.0.0.1:1/none?connect_timeout=2")
    assert (said.code, said.out) == (3, "")
    assert "127.0.0.1:1/none" in said.err


def test_a_demonstration_does_not_take_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = Terminal({}).run("demo", "--keep", str(tmp_path), "--json")
    assert (said.code, said.out) == (2, "")
    assert "not an empty folder" in said.err


def test_help_imports_neither_http_nor_database_nor_tables() -> None:
    """What keeps `tokenworks --help` and shell completion quick."""
    script = """
import sys
import typer.main
from tokenworks.cli.root import app
typer.main.get_command(app)
print(sorted({"httpx2", "psycopg", "rich", "asyncio", "fastapi"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_pipe_that_closes_early_is_quiet() -> None:
    command = f"{sys.executable} -m tokenworks.cli --help | true; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert run.stderr == ""


def test_verify_of_a_database_of_something_else_is_3(services: Settings) -> None:
    other = services.database_url.replace("/tokenworks?", "/postgres?")
    said = Terminal({}).run("verify", "--database", other)
    assert (said.code, said.out) == (3, "")
    assert "schema none" in said.err


def test_verify_of_empty_books_holds(database_url: str) -> None:
    assert Terminal({}).done("verify", "--database", database_url)["ok"] is True


def test_completion_names_groups_and_commands() -> None:
    environ = os.environ | {
        "_TOKENWORKS_COMPLETE": "complete_bash",
        "COMP_WORDS": "tokenworks keys ",
        "COMP_CWORD": "2",
    }
    script = "import sys; sys.argv[0] = 'tokenworks'; from tokenworks.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environ)
    assert run.stdout.split() == ["list", "show", "add", "revoke"]
