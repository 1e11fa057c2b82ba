"""
What application code calls: syncs, API calls, breakers, limits, webhooks, tokens, connections, conflicts, reconciliation.

It knows no backend of observability and no Celery: it says what happens to the hub, and keeps what the cluster shares in Redis.
"""
