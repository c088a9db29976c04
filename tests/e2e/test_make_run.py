"""``make run`` as a person types it: in a copy of the tree, with nothing installed, on a small world."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from deploy.local.stack import port_is_free

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1_200)]

CHECKOUT = Path(__file__).resolve().parents[2]
# What a fresh login has, and where packages come from.
KEPT = ("PATH", "HOME", "LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
KEPT_PREFIXES = ("PIP_", "UV_", "HTTP", "NO_PROXY", "no_proxy", "http")

SMALL_WORLD = {
    "name": "small",
    "feed": {
        "kind": "world",
        "first_day": "2024-01-01",
        "last_day": "2024-01-06",
        "users": 400,
        "new_users_per_day": 10,
        "videos": 200,
        "new_videos_per_day": 20,
    },
    "train": {"window_days": 2, "epochs": 1},
    "simulator": {"ensemble": 2, "epochs": 1, "rollouts": 1},
    "sizes": {
        "level0_width": 16,
        "level1": {"widths": [16, 8]},
        "deeper": {"kind": "cgc", "widths": [8]},
        "tower_widths": [8],
    },
}


@dataclass(frozen=True)
class Clone:
    """A copy of the tree, and how to type a command in it."""

    folder: Path
    pipeline: Path

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run make in an environment that knows nothing of this one's settings."""
        env = {name: text for name, text in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
        return subprocess.run(
            ["make", *arguments], cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )

    def processes(self) -> list[str]:
        """Command lines of what still runs in the copy."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if str(self.folder) in line or Path(process.cwd()).is_relative_to(self.folder):
                    found.append(line)
        return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """What git would give to somebody else, with what is not committed yet."""
    folder = tmp_path_factory.mktemp("make") / "clone"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=CHECKOUT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        # A file that was deleted and not committed is still listed.
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    pipeline = folder.parent / "small.yaml"
    pipeline.write_text(yaml.safe_dump(SMALL_WORLD))
    return Clone(folder, pipeline)


def test_make_run_installs_backfills_prints_the_verdict_and_leaves_nothing_running(
    clone: Clone, free_port: Callable[[], int]
) -> None:
    port = free_port()
    done = clone.make("run", "DAYS=1", f"PORT={port}", f"PIPELINE={clone.pipeline}")
    assert done.returncode == 0, f"{done.stdout[-6_000:]}\n{done.stderr[-3_000:]}"
    assert "pipeline small: 2024-01-06 to 2024-01-06" in done.stdout
    found = re.search(r"^2024-01-06  (?P<verdict>\S.*)\n +(?P<report>/\S.*)$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout[-3_000:]
    report = Path(found["report"])
    assert report.is_relative_to(clone.folder)
    assert found["verdict"] in report.read_text(encoding="utf-8")
    assert f"http://127.0.0.1:{port}" in done.stdout
    assert clone.processes() == []
    assert port_is_free(port)


def test_make_run_on_a_taken_port_names_it_and_how_to_choose_another(clone: Clone) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = clone.make("run", "DAYS=1", f"PORT={port}", f"PIPELINE={clone.pipeline}")
    # The program ends with 1, which make reports and turns into its own 2.
    assert done.returncode == 2
    assert "Error 1" in done.stderr
    assert re.search(rf"error: port {port} .* is taken .*'make run PORT={port + 1}'", done.stderr), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert clone.processes() == []
