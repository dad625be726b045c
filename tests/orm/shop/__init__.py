"""The Django application: a shop."""
