#!/bin/sh
# A stand-in for AutoSys's autostatus: prints the status of one job.
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

job=
while getopts ':J:S:' option; do
    case $option in
    J) job=$OPTARG ;;
    S) [ "$OPTARG" = SBX ] || fail "CAUAJM_E_10014 Invalid AutoSys instance: $OPTARG" ;;
    *) fail 'CAUAJM_E_10003 usage: autostatus -J job [-S instance]' ;;
    esac
done
[ -e "$spool/up" ] || fail 'CAUAJM_E_10527 The event server is not available.'
case $job in
'' | *[!A-Za-z0-9._#-]*) fail "Invalid job/box name: $job" ;;
esac
[ ${#job} -le 64 ] || fail "Invalid job/box name: $job"
if [ ! -e "$spool/any_job" ] && [ ! -e "$spool/jobs/j_$job" ]; then
    fail "Invalid job/box name: $job"
fi
# The last event of the job tells its status; a last line without its end is still being written and not read.
found=INACTIVE
while IFS=$tab read -r _ _ _ name status _; do
    if [ "$name" = "$job" ]; then
        found=$status
    fi
done <"$spool/events"
printf '%s\n' "$found"
