"""``mfh init``: write a pipeline file to start from."""

import json
from pathlib import Path

from components.config import Settings
from components.errors import ConfigError

TEMPLATES = Path(__file__).resolve().parent.parent / "deploy" / "pipelines"


def write_pipeline(settings: Settings, data: str | None, force: bool = False) -> Path:
    """Write the pipeline file of a feed into the folder that Airflow reads.

    Args:
        settings: Tells that folder.
        data: Folder of a KuaiRand edition, or None for the built-in world.
        force: Replace a file that is there; otherwise a file that is there is left as it is.

    Returns:
        The pipeline file.

    Raises:
        ConfigError: When a file is there for another folder and ``force`` is not given.
        SourceError: When the folder holds no KuaiRand edition.
    """
    name = "world" if data is None else "kuairand"
    text = (TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")
    if data is not None:
        from components.feed.kuairand import detect_days

        folder = Path(data).expanduser().resolve()
        first, last = detect_days(str(folder))
        # JSON strings are YAML strings, whatever characters a folder's name has.
        text = text.replace("@FOLDER@", json.dumps(str(folder)))
        text = text.replace("@FIRST_DAY@", first.isoformat()).replace("@LAST_DAY@", last.isoformat())
    target = settings.pipelines_dir / f"{name}.yaml"
    if target.exists() and not force:
        if data is not None and target.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{target} is there and differs from what {data} would need; 'mfh init --force' replaces it"
            )
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target
