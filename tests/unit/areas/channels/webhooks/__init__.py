"""
Webhooks.
"""
