"""Celery workers and beat: thin wrappers that run the payment steps. All work is found in PostgreSQL."""
