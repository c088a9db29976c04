-- Run once, when the server's volume is empty; the database of Airflow is made by the image itself.
CREATE DATABASE mlflow;
CREATE DATABASE feast;
