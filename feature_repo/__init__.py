"""The Feast repository: entities, feature views, one feature service, and the offline store over the lake.

``feast apply`` reads ``feature_store.yaml`` and ``repo.py``; everything is generated from
``components/feature_list.py``. Nothing else belongs here.
"""
