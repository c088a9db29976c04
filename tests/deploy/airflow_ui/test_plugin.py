"""What Airflow loads: found through the package, cheap to import, whole."""

import json
import subprocess
import sys
import time
import tomllib
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from tests.conftest import CHECKOUT

pytestmark = pytest.mark.integration

HEAVY = ("fastapi", "jinja2", "pyarrow", "numpy", "scipy", "pandas", "numba", "torch", "components.lake", "simulator")
PROBE = """
import json, sys
import airflow.sdk.plugins_manager
before = set(sys.modules)
import deploy.airflow_ui.plugin
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def plugin_class() -> Any:
    """As Airflow finds it: through the entry point that the package declares."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (found,) = project["entry-points"]["airflow.plugins"].items()
    return EntryPoint(found[0], found[1], "airflow.plugins").load()


def test_airflow_takes_the_entry_point_for_a_plugin() -> None:
    from airflow.api_fastapi.core_api.datamodels.plugins import PluginResponse
    from airflow.plugins_manager import is_valid_plugin

    plugin = plugin_class()
    assert is_valid_plugin(plugin)
    names = PluginResponse.model_fields
    # What the UI is told of it is understood by Airflow's own record.
    told = {name: getattr(plugin, name) for name in names if hasattr(plugin, name)} | {"source": "here"}
    told["fastapi_apps"] = [one | {"app": "pages"} for one in told["fastapi_apps"]]
    told["fastapi_root_middlewares"] = [one | {"middleware": "warmth"} for one in told["fastapi_root_middlewares"]]
    views = {view.destination: view for view in PluginResponse.model_validate(told).external_views}
    assert views["dag_run"].href == "mfh/dags/{DAG_ID}/runs/{RUN_ID}"
    assert views["nav"].nav_top_level
    assert not [view.href for view in views.values() if view.href.startswith("/")], "relative to Airflow's base URL"


def test_processes_that_serve_no_page_import_next_to_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=120
    )
    added = json.loads(done.stdout.splitlines()[-1])
    assert "deploy.airflow_ui.plugin" in added
    assert [name for name in added if name.startswith(HEAVY)] == []


def test_files_that_the_pages_need_are_part_of_the_package() -> None:
    tool = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = tool["package-data"]["deploy.airflow_ui"]
    root = CHECKOUT / "deploy" / "airflow_ui"
    packed = {path for pattern in patterns for path in root.glob(pattern)}
    assert {path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")} == packed


def test_the_pages_are_made_soon_after_the_server_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy.airflow_ui import plugin

    pages = plugin.Pages()
    monkeypatch.setattr(plugin, "PAGES", pages)
    plugin.Warmth(lambda *given: None, delay_s=0)
    deadline = time.monotonic() + 60
    while pages._app is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pages._app is not None
    assert pages.made() is pages._app, "made once"
