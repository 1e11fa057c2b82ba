"""
Pictures of the dashboards: each page's JSON as Grafana loads it, asked of a live Prometheus, and drawn as Grafana lays it out.

A query that answers may still show the wrong thing; only who looks at the panel sees that.
:mod:`.pages` reads the JSON, :mod:`.asking` asks Prometheus as Grafana would, :mod:`.contents` makes of the answers what a panel shows,
and the others draw it.  Run it with ``python -m pictures``, or ``tox -e pictures``; it writes ``docs/dashboards``.
"""
