"""The replay simulator: what would have happened had another model ranked the feed.

It sees a model only as something that scores (user, item) pairs (``policy.Scorer``). ``world`` is a feed with
known truth; ``response`` and ``session`` roll out sessions from a model fitted on the log; ``metrics`` and
``inference`` turn per-user outcomes into lifts with intervals; ``experiment`` is the record of a result and
``report`` its page.
"""
