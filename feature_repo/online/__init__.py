"""Online stores of Feast that keep one packed row per entity and view, and the engine that fills them in bulk.

Feast's own stores keep a record per entity *and feature*. A view of sixty features then costs sixty records to write
and sixty to read; packed, it costs one. The stores are subclasses of Feast's interface, so ``get_online_features``,
pushes and the feature server work as with any other; ``feature_store.yaml`` names their classes.

- ``rows``: a view's features as bytes, and back.
- ``store``: what the three stores share.
- ``sqlite``, ``redis``, ``postgres``: one store each.
- ``engine``: Arrow tables from the offline store into rows, without a Python object per value.
"""
