"""
The public face of the sync engine: what programs import, wherever it lives in `celery_obs.areas.channels`.
"""
