"""The reports inside Airflow's UI: an Airflow plugin with a list of days, a tab on each run, and a comparison.

Airflow finds it through the package's entry point ``airflow.plugins``, so an installation needs no setting. Only the
API server serves pages; every other process of Airflow imports ``plugin`` alone, which therefore imports nothing heavy.
Pages read the lake through ``components``, ask Airflow who may read which DAG, and write nothing.
"""
