"""Make the secrets of an installation: ``python -m deploy.compose.credentials``, once.

Writes ``.env`` (what compose.yaml asks for) and ``private/passwords.json`` (the first user) beside the compose file.
What is there already is left alone: new secrets would lock an installation out of its own database.
"""

import base64
import json
import os
import secrets
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TOKENS = (
    "AIRFLOW_SECRET_KEY",
    "AIRFLOW_JWT_SECRET",
    "MFH_DATABASE_PASSWORD",
    "MFH_REDIS_PASSWORD",
    "MFH_LAKE_ACCESS_KEY",
    "MFH_LAKE_SECRET_KEY",
)


def make(folder: Path = FOLDER) -> list[Path]:
    """Make what is missing.

    Args:
        folder: Where the files go.

    Returns:
        The files that were made.
    """
    # URLs carry some of them: letters and digits only.
    lines = [f"{name}={secrets.token_hex(24)}" for name in TOKENS]
    lines.append(f"AIRFLOW_FERNET_KEY={base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()}")
    password = json.dumps({"admin": secrets.token_urlsafe(16)})
    private = folder / "private"
    # The file is mounted into containers of another user, who has to read it; on this machine the folder keeps all out.
    private.mkdir(mode=0o700, exist_ok=True)
    made = []
    wanted = ((folder / ".env", "\n".join(lines), 0o600), (private / "passwords.json", password, 0o644))
    for path, text, mode in wanted:
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
                file.write(text + "\n")
            made.append(path)
    return made


def main() -> int:
    """Make what is missing and name it, without showing it."""
    for path in make():
        print(f"made {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
