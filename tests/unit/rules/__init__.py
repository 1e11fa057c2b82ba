"""
The generator of rules, alerts and dashboards.
"""
