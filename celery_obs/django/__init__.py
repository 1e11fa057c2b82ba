"""
For Django: ``INSTALLED_APPS = [..., "celery_obs.django"]`` observes the project's Celery app in every process of the project.
"""
