#!/usr/bin/env bash
# Installs Debian packages, as root, without letting their services run: the tests start their own
# brokers. `a|b` stands for the first of the two that is known here.
set -euo pipefail

policy=/usr/sbin/policy-rc.d
set_aside=$policy.before-waypost
# What the packages would start, now and at every boot.
services=(rabbitmq-server epmd prometheus)
export DEBIAN_FRONTEND=noninteractive

apt() {
    # Another apt may be at work: wait for it.
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

# A policy-rc.d that answers 101 forbids starting services. One that does so already is kept.
forbid_services() {
    if [ -x "$policy" ]; then
        local answer=0
        "$policy" rabbitmq-server start >/dev/null 2>&1 || answer=$?
        [ "$answer" = 101 ] && return
    fi
    trap restore_policy EXIT
    trap 'exit 1' HUP INT TERM
    [ ! -e "$policy" ] || mv "$policy" "$set_aside"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

restore_policy() {
    rm -f "$policy"
    [ ! -e "$set_aside" ] || mv "$set_aside" "$policy"
}

unit_exists() {
    [ -e "/lib/systemd/system/$1" ] || [ -e "/etc/init.d/${1%.service}" ]
}

# Undoes what installing enabled; leaves alone what was there before.
disable() {
    local unit=$1
    if command -v systemctl >/dev/null; then
        systemctl --quiet disable "$unit" || true
    else
        rm -f /etc/systemd/system/*.wants/"$unit"
    fi
    [ ! -e "/etc/init.d/${unit%.*}" ] || update-rc.d "${unit%.*}" disable >/dev/null || true
}

[ "$(id -u)" = 0 ] || { echo "scripts/packages.sh must run as root" >&2; exit 1; }

fresh=()
for service in "${services[@]}"; do
    for unit in "$service.service" "$service.socket"; do
        unit_exists "$unit" || fresh+=("$unit")
    done
done

apt update || echo "apt-get update failed; going on with the lists that are here" >&2
wanted=()
for package in "$@"; do
    chosen=${package%%|*}
    while IFS= read -r -d '|' candidate; do
        if apt-cache show "$candidate" >/dev/null 2>&1; then
            chosen=$candidate
            break
        fi
    done <<<"$package|"
    wanted+=("$chosen")
done

echo "Installing ${wanted[*]} ..."
forbid_services
apt install --yes --no-install-recommends "${wanted[@]}"
for unit in ${fresh[@]+"${fresh[@]}"}; do
    ! unit_exists "$unit" || disable "$unit"
done
