"""
Traces: spans of publishing, attempts, syncs and what happens in them, by OpenTelemetry.

Only what is asked for is loaded: `configuration` needs the standard library, all else here needs the packages of the extra ``tracing``.
"""
