"""
Webhooks: what channels tell us, checked for who sent it, and handled once.
"""
