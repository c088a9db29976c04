"""What the project is built of: known vulnerabilities, licences, and a bill of materials.

Each is a well-kept tool's work; this says what of its answer is acceptable. Without a network the vulnerabilities are
unknown, which is said and is no failure: a check that can not be made must not stop a build that has no network.
"""

import json
import re
import subprocess
import sysconfig
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from components.errors import ConfigError

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
AUDIT_TIMEOUT_S = 120
UNKNOWN = "UNKNOWN"
# Licences that ask nothing of a service that uses the package. Weak copyleft is fine unmodified.
PERMISSIVE = re.compile(
    r"apache|mit\b|bsd|isc|python software foundation|psf|mozilla|mpl|unlicense|public domain|zlib|cc0|wtfpl|"
    r"lesser general public|lgpl|artistic|hpnd|cnri|0bsd|universal permissive|upl|boost|bsl-1|nvidia proprietary",
    re.IGNORECASE,
)
STRONG_COPYLEFT = re.compile(r"affero|agpl|(?<!lesser )(?<!l)\bgpl|(?<!lesser )general public", re.IGNORECASE)


@dataclass(frozen=True)
class Package:
    """One installed package with its licence, as its metadata says."""

    name: str
    version: str
    licence: str


@dataclass(frozen=True)
class Vulnerability:
    """A known vulnerability of a pinned package."""

    package: str
    version: str
    id: str
    fixed_in: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """What the database of vulnerabilities says.

    Attributes:
        found: Known vulnerabilities.
        asked: How many packages it knew.
        unknown: How many it could say nothing of.
        reason: Why it could not be asked at all, empty where it was.
    """

    found: tuple[Vulnerability, ...] = ()
    asked: int = 0
    unknown: int = 0
    reason: str = ""


def licences() -> list[Package]:
    """The licence of every installed package.

    Returns:
        Packages by name.

    Raises:
        ConfigError: When the tool is not installed.
    """
    # "mixed" takes the classifier and else the metadata's own words.
    done = _tool("pip-licenses", "--from=mixed", "--format=json", "--with-system")
    found = [
        Package(one["Name"], one["Version"], one["License"] if one["License"] != UNKNOWN else first_line(one["Name"]))
        for one in json.loads(done.stdout)
    ]
    return sorted(found, key=lambda one: one.name.lower())


def first_line(name: str) -> str:
    """How a package's licence file begins, for metadata that names none; UNKNOWN without such a file."""
    for file in distribution(name).files or ():
        if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            return next((line.strip() for line in file.read_text().splitlines() if line.strip()), UNKNOWN)
    return UNKNOWN


def questionable(packages: list[Package]) -> list[Package]:
    """Packages whose licence a lawyer has to look at: strong copyleft without an alternative, or none that is known.

    Args:
        packages: With their licences.

    Returns:
        Those packages.
    """
    return [
        one
        for one in packages
        if not any(PERMISSIVE.search(part) for part in re.split(r"\bOR\b|;", one.licence))
        or all(STRONG_COPYLEFT.search(part) for part in re.split(r"\bOR\b|;", one.licence))
    ]


def vulnerabilities(lock: Path = LOCK) -> Audit:
    """Known vulnerabilities of the pinned packages.

    Args:
        lock: Requirements file with pins.

    Returns:
        What was found, and of how many packages nothing is known.

    Raises:
        ConfigError: When the tool is not installed, or the file is not there.
    """
    if not lock.is_file():
        raise ConfigError(f"{lock} is not there; 'make lock' makes it")
    # The pins are complete, so nothing has to be resolved or installed.
    arguments = ("--requirement", str(lock), "--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off")
    try:
        done = _tool("pip-audit", *arguments, timeout=AUDIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Audit(reason=f"no answer within {AUDIT_TIMEOUT_S} s")
    return parse_audit(done.stdout, done.stderr)


def parse_audit(output: str, errors: str) -> Audit:
    """Read pip-audit's answer.

    Args:
        output: Its JSON, empty where it could ask nobody.
        errors: Its messages.

    Returns:
        The answer. A package that it skipped was not audited, although its own summary calls that clean.
    """
    if not output.strip():
        said = errors.strip().splitlines()
        return Audit(reason=said[-1][:300] if said else "no answer")
    packages = json.loads(output)["dependencies"]
    known = [one for one in packages if "skip_reason" not in one]
    found = tuple(
        Vulnerability(one["name"], one["version"], flaw["id"], tuple(flaw["fix_versions"]))
        for one in known
        for flaw in one["vulns"]
    )
    return Audit(found, len(known), len(packages) - len(known))


def bill_of_materials(lock: Path = LOCK) -> str:
    """Everything that an install brings, as CycloneDX JSON.

    Args:
        lock: Requirements file with pins, from which every install is made.

    Returns:
        The document, the same for the same file.

    Raises:
        ConfigError: When the tool is not installed, or the file can not be read.
    """
    arguments = ("requirements", str(lock), "--output-reproducible", "--no-validate", "--output-format", "JSON")
    done = _tool("cyclonedx-py", *arguments)
    if done.returncode:
        raise ConfigError(f"no bill of materials could be made of {lock}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _tool(name: str, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / name
    if not program.exists():
        raise ConfigError(f"{name} is not installed; 'make lint' has it, else: pip install 'mfh-pipeline[audit]'")
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=timeout, check=False)
