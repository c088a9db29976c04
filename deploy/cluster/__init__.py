"""Airflow on PostgreSQL with Celery over Redis: two workers, one of them on the queue of the GPU."""
