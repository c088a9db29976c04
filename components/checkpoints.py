"""Where checkpoints of a training lie in the lake, until it has ended.

    <run's scope>/checkpoints/<name>/<key>/step-00000200.safetensors      the tensors
    <run's scope>/checkpoints/<name>/<key>/step-00000200.json             the facts and the tensors' hash, written last

The key is the content hash of what is trained on, so a training on other rows never meets these. A checkpoint exists
when its JSON file does and the tensors have the hash that it names; one that does not is passed over for the one
before, which is why the last two are kept.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import torch as safetensors
from torch import Tensor

from components.errors import LakeError
from components.lake import Lake
from components.partition import json_bytes

log = logging.getLogger("mfh")

FOLDER = "checkpoints"
KEPT = 2


class LakeCheckpoints:
    """Checkpoints of one training in a lake, on a folder or an object store alike.

    Args:
        lake: The run's scope of the lake.
        name: Which training: role and day.
        key: Content hash of what it is trained on.
    """

    def __init__(self, lake: Lake, name: str, key: str) -> None:
        self._lake, self._all = lake, lake.path(FOLDER, name)
        self._folder = f"{self._all}/{key[:16]}"

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint, then remove all but the last two.

        Args:
            step: Steps so far.
            tensors: Any device.
            facts: JSON types.

        Raises:
            LakeError: When there is no space or no permission; earlier checkpoints are then as they were.
        """
        name = f"step-{step:08d}"
        try:
            with tempfile.TemporaryDirectory(prefix="mfh-checkpoint-", dir=self._staging()) as folder:
                staged = Path(folder) / "tensors"
                safetensors.save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, staged)
                with staged.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                self._put(staged, f"{name}.safetensors")
                staged.write_bytes(json_bytes({"sha256": digest, "facts": dict(facts)}))
                self._put(staged, f"{name}.json")
            for old in self._steps()[:-KEPT]:
                self._remove(old)
        except OSError as error:
            raise LakeError(
                f"the checkpoint of step {step} could not be written below {self._folder}: {error}; check free space "
                "and permissions ('mfh doctor' does)"
            ) from error

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint that is whole.

        Returns:
            Its tensors, in host memory, and facts; None where there is none.
        """
        for name in reversed(self._steps()):
            record = json.loads(self._lake.fs.cat_file(f"{self._folder}/{name}.json"))
            try:
                content: bytes = self._lake.fs.cat_file(f"{self._folder}/{name}.safetensors")
            except FileNotFoundError:
                content = b""
            if hashlib.sha256(content).hexdigest() == record["sha256"]:
                return safetensors.load(content), record["facts"]
            log.warning("checkpoint=%s/%s is damaged and passed over", self._folder, name)
        return None

    def clear(self) -> None:
        """Remove every checkpoint of this training, those on other rows included."""
        if self._lake.fs.exists(self._all):
            self._lake.fs.rm(self._all, recursive=True)

    def _steps(self) -> list[str]:
        """Names of the checkpoints, oldest first."""
        return sorted(Path(str(path)).stem for path in self._lake.fs.glob(f"{self._folder}/step-*.json"))

    def _remove(self, name: str) -> None:
        # The fact that it exists goes first.
        for ending in ("json", "safetensors"):
            self._lake.fs.rm_file(f"{self._folder}/{name}.{ending}")

    def _staging(self) -> str | None:
        """A folder on the lake's own disk, from which a file can be renamed into place; None for an object store."""
        if not self._lake.is_local:
            return None
        Path(self._folder).mkdir(parents=True, exist_ok=True)
        return self._folder

    def _put(self, staged: Path, name: str) -> None:
        if self._lake.is_local:
            staged.replace(Path(self._folder) / name)
        else:
            self._lake.fs.put_file(str(staged), f"{self._folder}/{name}")
