"""No DAG: fails to be imported while a pipeline file can not be read, so that Airflow's UI shows which one, and why.

It stands apart from the files that make DAGs, so that one wrong pipeline file takes no other pipeline's DAG away.
"""

from components.config import Settings, read_pipeline_files
from components.errors import ConfigError

_, wrong = read_pipeline_files(Settings().pipelines_dir)
if wrong:
    raise ConfigError("\n".join(wrong))
