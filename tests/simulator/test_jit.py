"""Machine code must not outlive the code that it was made from."""

import subprocess
import sys
from pathlib import Path

CALLEE = "from {package}.jit import compiled\n\n\n@compiled\ndef two() -> float:\n    return {value}\n"
CALLER = """from {package}.callee import two
from {package}.jit import compiled


@compiled
def four() -> float:
    return two() * 2.0
"""


def test_changing_a_called_function_compiles_its_callers_anew(tmp_path: Path) -> None:
    package = tmp_path / "scratch"
    package.mkdir()
    (package / "__init__.py").touch()
    source = Path(__file__).parents[2] / "simulator" / "jit.py"
    (package / "jit.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (package / "caller.py").write_text(CALLER.format(package="scratch"), encoding="utf-8")

    def answer(value: float) -> float:
        (package / "callee.py").write_text(CALLEE.format(package="scratch", value=value), encoding="utf-8")
        code = "from scratch.caller import four; print(four())"
        # Without bytecode: Python would take a file of equal size, written in the same second, for the old one.
        command = [sys.executable, "-B", "-c", code]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return float(run.stdout)

    assert answer(2.0) == 4.0
    assert list(package.glob("__pycache__/compiled-*/**/*.nbc")), "nothing was kept, so nothing is shown"
    assert answer(3.0) == 6.0
    assert answer(2.0) == 4.0
