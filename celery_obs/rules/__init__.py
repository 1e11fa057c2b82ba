"""
The generator: vocabulary in, files out.  Rules, alerts, SLOs, aliases, dashboards and reference pages, the same on every machine.
"""
