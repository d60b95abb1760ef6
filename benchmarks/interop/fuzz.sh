#!/bin/sh
# The reward server under bad input: schemathesis on its own OpenAPI description. No answer may be a 5xx but the documented 503.
#   sh benchmarks/interop/fuzz.sh [examples per operation] > benchmarks/interop/fuzz.txt
# not_a_server_error takes every 5xx for a failure, so a documented 503 would show too; status_code_conformance, content_type_conformance,
# response_headers_conformance and response_schema_conformance hold every answer to the description; unsupported_method wants 405.
# Left out: positive_data_acceptance, because a schema cannot say which strings are Python.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
home=${RLAIF_INTEROP:-$HOME/.cache/rlaif/interop}/schemathesis
[ -x "$home/bin/schemathesis" ] || { "$python" -m venv "$home" && "$home/bin/pip" install -q schemathesis==4.32.5; }
log=$(mktemp)
"$python" -m rlaif serve --feedback execution --port 0 --sandbox.timeout-s 1 2>"$log" &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -f "$log" "$log.out"' EXIT
while ! grep -q http:// "$log"; do sleep 0.2; done
address=$(grep -o 'http://[^ ]*' "$log" | head -1)
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method
status=0
cd "$(mktemp -d)" && "$home/bin/schemathesis" run "$address/openapi.json" --checks "$checks" --max-examples "${1:-300}" --phases examples,coverage,fuzzing --seed 1 \
    --workers 2 --no-color --request-timeout 60 >"$log.out" 2>&1 || status=$?
sed "s#$address#http://127.0.0.1:PORT#" "$log.out"
echo "the server said: $(grep -vc http:// "$log" || true) lines besides its greeting"
grep -v http:// "$log" | tail -20 || true
exit $status
