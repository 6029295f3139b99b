"""The example on each page of docs/integrations runs as it stands, and its network is narrow afterwards."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import test_ultralytics

import prunus

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "integrations").glob("*.md"))
PREPARED = {  # torchvision beside a CPU-only torch; Ultralytics' runs where the test is
    page.stem: "from prunus import compat\n" for page in PAGES
} | {"ultralytics": "from prunus import compat\nfrom ultralytics import settings\nsettings.update(runs_dir='runs')\n"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_example_runs(tmp_path, page):
    if importlib.util.find_spec(page.stem) is None:
        pytest.skip(f"{page.stem} is not installed")
    if page.stem == "ultralytics":
        if not test_ultralytics.ROADSIGN.is_dir():
            pytest.skip("roadsign_voc is not here")
        test_ultralytics.converted(tmp_path / "set").rename(tmp_path / "data.yaml")
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    shown = "print('PLAN', len(shrink.plan.edits))\n"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}  # where users are
    environment = outside | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "YOLO_CONFIG_DIR": str(tmp_path)}
    (tmp_path / "example.py").write_text(PREPARED[page.stem] + example + shown)
    result = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=280
    )
    found = re.search(r"PLAN (\d+)", result.stdout)
    assert found, result.stderr[-3000:]
    assert int(found[1]) > 0
    assert list(tmp_path.rglob("*.onnx"))
    if (tmp_path / "narrow").is_dir():
        assert prunus.Plan.from_json((tmp_path / "narrow" / "plan.json").read_text()).edits


def test_every_integration_has_a_page():
    trainers = {path.stem for path in (ROOT / "prunus" / "integrations").glob("*.py")} - {"__init__", "running"}
    assert trainers == {page.stem for page in PAGES}
