#!/bin/sh
# Reports how a job went to the webhook of its monitor, with what it said and how long it took.
# Needs a POSIX shell and curl, nothing else.
set -eu

usage() {
    cat <<'TEXT'
Usage: report_job_status.sh URL STATUS [MESSAGE] [EXECUTION_TIME_MS]

Reports to a monitor how a job went.

  URL                the monitor's webhook: https://cron.example.com/webhook/ping/<token>
  STATUS             success, failed, or running when it has begun
  MESSAGE            any text, such as the job's log; its end is sent, as much as is kept there
  EXECUTION_TIME_MS  how long the job took, in whole milliseconds

Exit status: 0 delivered; 1 not delivered, and stderr says why; 2 this usage was not followed.

Example:

  if output=$(backup 2>&1); then status=success; else status=failed; fi
  report_job_status.sh "$URL" "$status" "$output"
TEXT
}

misused() {
    printf 'report_job_status.sh: %s; see --help\n' "$1" >&2
    exit 2
}

# The end of any text as a JSON string in ASCII: characters beyond it become \uXXXX, bytes that are not UTF-8
# become \ufffd. awk gets the bytes as decimal numbers, so it needs to know of no encoding. Of a report a gateway
# keeps the first 10,000 bytes, and how a job failed is said at the end.
json_string() {
    printf %s "$1" | tail -c 9500 | od -A n -v -t u1 | awk '
        function emit(code) {
            if (code == 34 || code == 92) add(sprintf("\\%c", code))
            else if (code == 10) add("\\n")
            else if (code >= 32 && code < 127) add(sprintf("%c", code))
            else if (code < 65536) add(sprintf("\\u%04x", code))
            else {
                code -= 65536
                add(sprintf("\\u%04x\\u%04x", 55296 + int(code / 1024), 56320 + code % 1024))
            }
        }
        function add(piece) { pieces[++count] = piece; size += length(piece) }
        function begin(first) {  # the first byte of a character: how many follow, and the least it may be
            missing = first >= 240 ? 3 : first >= 224 ? 2 : 1
            code = first - (first >= 240 ? 240 : first >= 224 ? 224 : 192)
            least = first >= 240 ? 65536 : first >= 224 ? 2048 : 128
        }
        function take(byte) {
            if (missing && byte >= 128 && byte < 192) {
                code = code * 64 + byte - 128
                if (--missing == 0)
                    emit(code < least || code > 1114111 || (code >= 55296 && code < 57344) ? 65533 : code)
                return
            }
            if (missing) { emit(65533); missing = 0 }  # a character that was broken off
            if (byte < 128) emit(byte)
            else if (byte >= 194 && byte < 245) begin(byte)
            else emit(65533)
        }
        { for (i = 1; i <= NF; i++) take($i + 0) }
        END {
            if (missing) emit(65533)
            for (first = 1; size > 9500; first++) size -= length(pieces[first])
            printf "\""
            for (i = first; i <= count; i++) printf "%s", pieces[i]
            printf "\""
        }'
}

# The JSON of one report.
report() {
    printf '{"status": "%s"' "$1"
    [ $# -lt 2 ] || printf ', "message": %s' "$(json_string "$2")"
    [ -z "${3-}" ] || printf ', "execution_time_ms": %s' "$3"
    printf '}'
}

case ${1-} in -h | --help)
    usage
    exit 0
    ;;
esac
[ $# -ge 2 ] && [ $# -le 4 ] || misused "expected 2 to 4 arguments, got $#"
case $1 in http://?* | https://?*) ;; *) misused "bad URL: expected http://… or https://…" ;; esac
case $2 in success | failed | running) ;; *) misused "bad status \"$2\": expected success, failed or running" ;; esac
case ${4-} in *[!0-9]* | 0?*) misused "bad execution time \"$4\": expected whole milliseconds" ;; esac
command -v curl >/dev/null || { echo "report_job_status.sh: there is no curl here" >&2; exit 1; }

url=$1
shift
# The body goes through a pipe: arguments can be read by who lists processes. The last line is the HTTP status.
answer=$(report "$@" | curl --silent --show-error --globoff --max-time 10 \
    --retry 2 --retry-connrefused --retry-max-time 20 --header 'Content-Type: application/json' \
    --data-binary @- --write-out '\n%{http_code}' "$url") || exit 1
code=${answer##*
}
case $code in 2??) exit 0 ;; esac
printf 'report_job_status.sh: not delivered, the answer was %s: %s\n' "$code" "${answer%
*}" >&2
exit 1
