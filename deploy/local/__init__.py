"""Airflow on one machine with nothing to install beside it: SQLite, LocalExecutor, servers on 127.0.0.1."""
