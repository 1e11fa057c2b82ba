"""
Inside a Celery process: its signals, what they mean, and the worker's own state.
"""
