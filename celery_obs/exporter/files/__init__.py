"""
Reading the metric files: `reader` takes what the processes of a node wrote, `merge` makes one set of series of all nodes.

What a file once said is never forgotten while the sidecar runs: a file that vanishes, shrinks or turns to garbage keeps its last good numbers,
so that no total falls, and is told in ``celery_obs_metric_files``.
"""
