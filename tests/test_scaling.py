"""docs/scaling.md: its arithmetic gives its table, its manifest and its recipe are YAML, its commands exist."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from prunus.data import ShardsData

TEXT = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_table_is_what_the_arithmetic_gives():
    (code,) = blocks("python")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "scaling.md", "exec"), {})
    rows = [line for line in TEXT.splitlines() if re.match(r"\| [\d,]+ \|", line)]
    assert shown.getvalue().splitlines() == rows and len(rows) == 4


def test_the_manifest_runs_what_torchrun_is_given_elsewhere():
    (service, manifest), (data,) = (list(yaml.safe_load_all(block)) for block in blocks("yaml"))
    assert service["metadata"]["name"] == manifest["spec"]["template"]["spec"]["subdomain"]
    assert service["spec"]["selector"]["job-name"] == manifest["metadata"]["name"]
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    arguments = container["args"]
    assert arguments[arguments.index("-m") + 1] == "prunus.cli"
    assert manifest["spec"]["completions"] == manifest["spec"]["parallelism"] == 8
    volumes = {volume["name"] for volume in manifest["spec"]["template"]["spec"]["volumes"]}
    assert volumes == {mount["name"] for mount in container["volumeMounts"]}
    assert ShardsData(**data["data"]["init_args"]).shuffle == 16


TORCHRUN = [block.partition("torchrun")[2].partition("-m prunus")[0] for block in (*blocks("bash"), *blocks(""))]


@pytest.mark.parametrize("option", sorted(set(re.findall(r"--[a-z-]+", " ".join(TORCHRUN)))))
def test_an_option_of_torchrun_exists(option):
    known = {text for action in get_args_parser()._actions for text in action.option_strings}
    assert option in known
