#!/usr/bin/env bash
# What an operator looks at each morning: connections, breakers, success of the syncs, drift, tokens.
#
# Usage: daily-health-check.sh
#
# Environment:
#   CELERY_OBS_URL   an exporter that may serve the cluster's state   (default http://127.0.0.1:19540)
#   PROMETHEUS_URL   the Prometheus that scrapes it                   (default http://127.0.0.1:9090)
#   WINDOW           how far back the success rate looks              (default 24h)
#
# Needs curl and jq.  Exit code: 0 when every question was answered, 1 when one was not (the others are answered all the same), 2 without curl or jq.
# `celery-obs health` answers the same questions without Prometheus, and its exit code says whether the answers are good.
set -euo pipefail

obs=${CELERY_OBS_URL:-http://127.0.0.1:19540}
prometheus=${PROMETHEUS_URL:-http://127.0.0.1:9090}
window=${WINDOW:-24h}
failed=0

for tool in curl jq; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "daily-health-check.sh needs $tool, which is not on PATH. Install it: apt-get install curl jq" >&2
        exit 2
    fi
done

# ask FILTER URL [curl options]: print what the filter makes of the answer, or say that there was none.
ask() {
    local filter=$1 url=$2
    shift 2
    # Two steps, so that curl's failure is seen: an empty answer is no good news.
    if ! answer=$(curl --fail --silent --show-error --max-time 10 --get "$@" "${url}"); then
        echo "(no answer from ${url})"
        failed=1
    elif ! jq --raw-output "$filter" <<<"$answer"; then
        echo "(cannot read the answer of ${url})"
        failed=1
    fi
}

echo "=== Channel Manager Health Check ==="

echo
echo "1. Connection Status:"
ask '.connections | group_by(.status) | map({status: .[0].status, count: length})' "$obs/api/v1/channels/status"

echo
echo "2. Circuit Breaker States:"
ask '.[] | {channel: .channel_type, state: .state}' "$obs/api/v1/channels/circuit-breakers"

echo
echo "3. Sync Success Rate (${window}), in percent:"
# The query is data, not a part of the URL: its braces and brackets mean something to curl.
ask '.data.result[0].value[1] // "no syncs"' "$prometheus/api/v1/query" --data-urlencode \
    "query=sum(rate(channel_sync_total{status=\"success\"}[${window}])) / sum(rate(channel_sync_total[${window}])) * 100"

echo
echo "4. Pending Reconciliation Issues:"
ask '.count' "$obs/api/v1/channels/reconciliation/pending"

echo
echo "5. Tokens Expiring Soon:"
ask '.[] | {connection: .connection_id, expires_in_days: .expires_in_days}' "$obs/api/v1/channels/tokens/expiring"

exit "$failed"
