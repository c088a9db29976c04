"""Where and how tasks run, beside what they compute: queues, pod templates, retries. Read by ``dags/``, by no step."""

from pathlib import Path

from pydantic import BaseModel, Field, field_validator


class RunnerSettings(BaseModel):
    """Part of the machine's ``Settings``: each field can be set by the environment variable ``MFH_<FIELD>``.

    Attributes:
        gpu_queue: Queue of the tasks that train, served by a Celery worker with a GPU; empty for the default one.
        pod_templates: Folder with ``gpu.yaml``, the pod template of the tasks that train; empty for Airflow's own.
        retries: How often a task that failed is tried again.
        retry_delay_s: Seconds before the first of them; doubled each time, ten minutes at most.
        backfill_pool: Pool of what backfills run, the pools that tasks name aside, so that they leave slots to the
            daily run; must exist. Empty for none.
        max_active_runs: Days of one pipeline that run at once; a backfill has a cap of its own.
    """

    gpu_queue: str = ""
    pod_templates: str = ""
    retries: int = Field(2, ge=0)
    retry_delay_s: float = Field(20, ge=0)
    backfill_pool: str = ""
    max_active_runs: int = Field(4, ge=1)

    @field_validator("pod_templates")
    @classmethod
    def _complete(cls, value: str) -> str:
        # Found out here, not when the first training of the night is to start.
        if value and not (Path(value) / "gpu.yaml").is_file():
            raise ValueError(f"{value} holds no gpu.yaml")
        return value

    @property
    def gpu_pod_template(self) -> str:
        """Path of the pod template of tasks that train, or empty."""
        return str(Path(self.pod_templates) / "gpu.yaml") if self.pod_templates else ""
