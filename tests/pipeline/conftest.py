"""One finished run, made by the command line in this process, for all tests of this folder."""

import contextlib
import dataclasses
import io

import pytest
import tiny

from prunus import cli


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished run: where it stood, its folder, and what the terminal showed."""

    here: object
    folder: object
    output: str


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    here = tmp_path_factory.mktemp("done")
    tiny.write_recipe(here)
    shown = io.StringIO()
    with contextlib.chdir(here), contextlib.redirect_stdout(shown):
        assert cli.main(["run", "tiny.yaml"]) == 0
    return Done(here, here / "runs" / "tiny", shown.getvalue())
