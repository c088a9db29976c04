"""The golden report: fixed records and what they render to. Run as a module to write it anew."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from simulator.experiment import Experiment
from simulator.report.page import render
from tests.simulator.experiment_example import full, refused, without_new_users
from tests.simulator.many_segments import many_segments

FOLDER = Path(__file__).parent / "golden"
RECORDS: Mapping[str, Callable[[], Experiment]] = {
    "full": full,
    "refused": refused,
    "without_new_users": without_new_users,
    "many_segments": many_segments,
}

# Too long to be read in a diff.
HASH_ALONE = ("many_segments",)


def texts(page: str) -> str:
    """What a reader sees, a line per row or paragraph: a change of the page that a person can judge in a diff."""
    body = re.sub(r"<(style|svg)\b.*?</\1>", "", page[page.index("<body") :], flags=re.DOTALL)
    body = re.sub(r"\s+", " ", body)
    lines = re.sub(r"</(tr|p|h[1-6]|li|dd|div|summary|figcaption|caption|nav)>", "\n", body)
    plain = re.sub(r"<[^>]*>", " ", lines)
    return "\n".join(" ".join(line.split()) for line in plain.splitlines() if line.strip()) + "\n"


def digest(page: str) -> str:
    """Of the whole page, drawings included."""
    return hashlib.sha256(page.encode()).hexdigest()


def main() -> None:
    """Write records, texts and hashes."""
    FOLDER.mkdir(exist_ok=True)
    hashes = []
    for name, record in RECORDS.items():
        page = render(record())
        if name == "full":
            (FOLDER / "experiment.json").write_text(record().model_dump_json(indent=1) + "\n", encoding="utf-8")
        if name not in HASH_ALONE:
            (FOLDER / f"{name}.txt").write_text(texts(page), encoding="utf-8")
        hashes.append(f"{digest(page)}  {name}.html\n")
    (FOLDER / "sha256").write_text("".join(hashes), encoding="utf-8")


if __name__ == "__main__":
    main()
