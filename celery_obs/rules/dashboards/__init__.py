"""
Dashboards: what each page shows, as values, and the JSON that Grafana loads.

:mod:`.model` says what pages are made of, :mod:`.queries` writes their PromQL, :mod:`.grafana` their JSON; :mod:`.pages` gathers all of them.
"""
