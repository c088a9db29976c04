"""The data gates: what is measured of a day, which limits it is held to, and what happens when it breaks one.

``measures`` turn a table into a small summary, ``control`` and ``drift`` learn limits from the summaries of earlier
days, ``*_suite`` put both together as outcomes; all of these are pure functions without a lake. ``engine`` runs
the outcomes as a Great Expectations checkpoint and renders its Data Docs, ``gate`` keeps results in the lake and stops
the day, ``passes`` and ``notify`` are for the person on call.
"""
