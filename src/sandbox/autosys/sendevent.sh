#!/bin/sh
# A stand-in for AutoSys's sendevent: checks its arguments as the real one does and appends one line to the event log.
# Nothing here evaluates a value: arguments are only compared, and stored as they came.
LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/bin:/bin
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
spool=$here/../spool
tab=$(printf '\t')

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

usage() {
    fail 'CAUAJM_E_10003 usage: sendevent -E EVENT -J job [-s status] [-S instance] [-C comment]'
}

event= job= status= comment= has_status= has_comment=
while getopts ':E:J:s:S:C:A:B:I:P:M:q:G:T:K:N:Ux' option; do
    case $option in
    E) event=$OPTARG ;;
    J) job=$OPTARG ;;
    s) status=$OPTARG has_status=1 ;;
    S) [ "$OPTARG" = SBX ] || fail "CAUAJM_E_10014 Invalid AutoSys instance: $OPTARG (-S is the instance, -s the status)" ;;
    C) comment=$OPTARG has_comment=1 ;;
    P | M | q) ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || usage

[ -e "$spool/up" ] || fail 'CAUAJM_E_10527 The event server is not available.'

case $event in
CHANGE_STATUS)
    [ -n "$has_status" ] || fail 'CAUAJM_E_50031 CHANGE_STATUS needs a status: -s STATUS'
    case $status in
    ACTIVATED | FAILURE | INACTIVE | ON_HOLD | ON_ICE | QUE_WAIT | RESTART | RUNNING | STARTING | SUCCESS | TERMINATED) ;;
    *) fail "CAUAJM_E_50032 Invalid status: $status" ;;
    esac
    ;;
STARTJOB | FORCE_STARTJOB)
    [ -z "$has_status" ] || fail "CAUAJM_E_50033 -s is only for CHANGE_STATUS, not for $event"
    # Nothing runs here: a job that was started stays so until it is told otherwise.
    status=RUNNING
    ;;
*) fail "CAUAJM_E_50030 Invalid event: $event" ;;
esac

# 255 characters of at most 4 bytes each.
[ ${#comment} -le 1020 ] || fail 'CAUAJM_E_50034 The comment is longer than 255 characters.'

case $job in
'' | *[!A-Za-z0-9._#-]*) fail "CAUAJM_E_50029 Invalid job name: $job" ;;
esac
[ ${#job} -le 64 ] || fail "CAUAJM_E_50029 Invalid job name: $job"
if [ ! -e "$spool/any_job" ] && [ ! -e "$spool/jobs/j_$job" ]; then
    fail "CAUAJM_E_50029 Invalid job name: $job"
fi

# The file can be removed once only: of several callers exactly one is refused.
if [ -e "$spool/refuse/j_$job" ] && rm "$spool/refuse/j_$job" 2>/dev/null; then
    fail "CAUAJM_E_10029 The event server did not take the event for job $job. Send it again."
fi

hex=-
[ -z "$has_comment" ] || hex=x$(printf '%s' "$comment" | od -An -v -tx1 | tr -d ' \n')
at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
line="$at${tab}sendevent${tab}$event${tab}$job${tab}$status${tab}$hex"
# One write to a file that is open for appending: lines of several processes do not mix.
printf '%s\n' "$line" >>"$spool/events" || fail 'CAUAJM_E_10527 The event server is not available.'
printf 'CAUAJM_I_50152 Sendevent issued\n'
