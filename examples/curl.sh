#!/bin/sh
# A picture and a question for the gateway, with nothing but curl; the whole answer as JSON.
#   sh examples/curl.sh picture.png "How many circles are there?" [http://127.0.0.1:8080/v1]
set -eu
picture=$1 url=${3:-http://127.0.0.1:8080/v1}
question=$(printf '%s' "$2" | tr '[:cntrl:]' ' ' | sed 's/[\"]/\\&/g') # as a JSON string holds it
{
    printf '{"model": "edge_vlm", "max_tokens": 64, "messages": [{"role": "user", "content": ['
    printf '{"type": "image_url", "image_url": {"url": "data:image/png;base64,'
    base64 <"$picture" | tr -d '\n'
    printf '"}}, {"type": "text", "text": "%s"}]}]}' "$question"
} | curl --silent --show-error --fail-with-body "$url/chat/completions" -H 'Content-Type: application/json' --data-binary @-
