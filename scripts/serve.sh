#!/usr/bin/env bash
# Says what to try, then becomes the server. Usage: serve.sh BINARY MODEL [ARGUMENT ...]
set -euo pipefail
binary=$1 model=$2
shift 2

host=127.0.0.1 port=8080
arguments=("$@")
for ((i = 0; i < ${#arguments[@]}; i++)); do
    case ${arguments[i]} in
        --port) port=${arguments[i + 1]:-$port} ;;
        --port=*) port=${arguments[i]#*=} ;;
        --host) host=${arguments[i + 1]:-$host} ;;
        --host=*) host=${arguments[i]#*=} ;;
    esac
done
[[ $host == 0.0.0.0 ]] && host=127.0.0.1
url=http://$host:$port

cat <<END

Serving $model at $url. When the server says that it is ready, try in another terminal:

  curl $url/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]}'

or stream it with \`"stream": true\` and \`curl -N\`. Any OpenAI client works: base URL $url/v1, any API key.
Ctrl-C stops it.

END
exec "$binary" serve --model "$model" "$@"
