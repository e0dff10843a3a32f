"""An example: every docstring of Python's standard library through a real embedding model, then a question."""
