"""The Celery fleet: the steps of a line's way, and what runs them. Not for the rules, which are in `batchord`."""
