"""The certificate: what the checks found, for one state of the code, and its citation in a daily report.

The hash covers the simulator's response, session, replay and inference code, as it runs (comments, docstrings and
layout do not count), and the settings that it runs with; nothing else of the project. A report whose code or settings
have another hash says that no certificate speaks of it.
"""

import ast
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from components.checks.rung import Found
from components.config import SimulatorSettings
from components.errors import ConfigError
from simulator.decision import QUESTIONS
from simulator.experiment import Rung

SCHEMA = 1
ROOT = Path(__file__).resolve().parent.parent.parent
CERTIFICATE = ROOT / "benchmarks" / "results" / "certificate.json"

# What simulated numbers are made of; the world, the report and the models are not.
_CODE = (
    "components/heldout.py",
    "components/respond.py",
    "simulator/agreement.py",
    "simulator/appeal.py",
    "simulator/comparison.py",
    "simulator/draws.py",
    "simulator/evidence.py",
    "simulator/inference.py",
    "simulator/logit.py",
    "simulator/metrics.py",
    "simulator/response.py",
    "simulator/response_data.py",
    "simulator/response_fit.py",
    "simulator/response_levels.py",
    "simulator/response_state.py",
    "simulator/scores.py",
    "simulator/serving.py",
    "simulator/session.py",
    "simulator/walk.py",
    "simulator/offpolicy",
)
_SETTINGS = ("folds", "ensemble", "epochs", "rollouts", "max_slots", "candidates", "response_rows")


def simulator_hash(settings: SimulatorSettings) -> str:
    """Identity of the simulator's code and of the settings that it runs with.

    Args:
        settings: Of a pipeline.

    Returns:
        Twelve hexadecimal digits.
    """
    digest = sha256()
    for name in _CODE:
        path = ROOT / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(ROOT).as_posix().encode())
            digest.update(_code_of(file.read_text(encoding="utf-8")).encode())
    digest.update(json.dumps({name: getattr(settings, name) for name in _SETTINGS}, sort_keys=True).encode())
    return digest.hexdigest()[:12]


def write(found: Sequence[Found], settings: SimulatorSettings, machine: dict[str, Any], path: Path) -> dict[str, Any]:
    """Put rungs together.

    Args:
        found: One or more per rung; several of one rung (such as two feeds' backtests) are shown as one.
        settings: That the checks ran with.
        machine: Processor and versions.
        path: File to write.

    Returns:
        What was written.
    """
    record = {
        "schema": SCHEMA,
        "simulator": simulator_hash(settings),
        "settings": {name: getattr(settings, name) for name in _SETTINGS},
        **machine,
        "rungs": [{"rung": name, **_joined([one for one in found if one.rung == name])} for name in QUESTIONS],
        "found": [one.record() for one in found],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
    return record


def read_records(paths: Sequence[Path], settings: SimulatorSettings) -> list[Found]:
    """What single checks found.

    Args:
        paths: Files that ``mfh check NAME --json FILE`` wrote.
        settings: That the certificate shall speak of.

    Returns:
        All rungs of all files.

    Raises:
        ConfigError: When a file is no record, or is of another simulator.
    """
    mine, found = simulator_hash(settings), []
    for path in paths:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            theirs, parts = record["simulator"], [Found(**one) for one in record["found"]]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} is no record of a check: {error!r}") from error
        if theirs != mine:
            raise ConfigError(f"{path} is of another simulator ({theirs}, this is {mine}); run its check again")
        found += parts
    return found


def cited(settings: SimulatorSettings, path: Path = CERTIFICATE) -> tuple[Rung, ...]:
    """What the certificate says of a pipeline's simulator.

    Args:
        settings: Of the pipeline.
        path: The certificate's file.

    Returns:
        Rungs V1 to V6; all missing, with the reason, where no certificate speaks of this code and these settings.

    Raises:
        ConfigError: When the file is no certificate.
    """
    mine = simulator_hash(settings)
    if not path.exists():
        return _missing("no certificate was made; 'mfh check all' makes one")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        theirs, rungs = record["simulator"], {one["rung"]: one for one in record["rungs"]}
        if theirs != mine:
            return _missing(
                f"the certificate is of another simulator ({theirs}, this is {mine}); 'mfh check all' makes a new one"
            )
        return tuple(
            Rung(
                name=name,
                question=question,
                state=rungs[name]["state"],
                detail=f"{rungs[name]['sentence']} (certificate {theirs})",
            )
            for name, question in QUESTIONS.items()
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no certificate of this schema: {error!r}; make it anew: mfh check all") from error


def _missing(why: str) -> tuple[Rung, ...]:
    return tuple(
        Rung(name=name, question=question, state="missing", detail=f"Not known for this version: {why}.")
        for name, question in QUESTIONS.items()
    )


def _joined(found: Sequence[Found]) -> dict[str, str]:
    """State and sentence of one rung: the worst state, all sentences."""
    if not found:
        return {"state": "missing", "sentence": "This check was not run."}
    states = [one.state for one in found]
    state = next(state for state in ("failed", "missing", "not powered", "passed") if state in states)
    # One powered feed is enough: a feed that can not be powered adds nothing and takes nothing away.
    if state in ("missing", "not powered") and "passed" in states:
        state = "passed"
    return {"state": state, "sentence": " ".join(one.sentence for one in found)}


def _code_of(text: str) -> str:
    """The code as it runs: no comments, no layout, no docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            body[:] = body[1:] or [ast.Pass()]
    return repr(_shape(tree))


def _shape(node: Any) -> Any:
    """A syntax tree as nested lists without what is empty: Python's own dump spells that out differently by version."""
    if isinstance(node, list):
        return [_shape(one) for one in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
    return [type(node).__name__, *((name, _shape(value)) for name, value in fields)]
