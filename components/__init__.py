"""Steps of the daily pipeline: one verb per file, each a plain function of (context, day).

No Airflow in here. ``feed`` holds the log's schema and its sources, ``models`` the networks; the simulator
is a package of its own, which sees a model only as something that scores (user, item) pairs.
"""

__version__ = "0.1.0"
