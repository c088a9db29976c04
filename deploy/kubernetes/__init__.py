"""Airflow's KubernetesExecutor: a pod for every task, rendered here as the executor renders it."""
