"""On the path of every component, because Airflow imports its cluster policy by the name ``airflow_local_settings``."""
