#!/bin/sh
# Runs sshd in the foreground. The keys come in by the environment, so that one image
# serves every test: HAUL_HOST_KEY (private, PEM) and HAUL_AUTHORIZED_KEY (public).
set -eu
umask 077
printf '%s\n' "$HAUL_HOST_KEY" >/etc/ssh/haul_host_key
printf '%s\n' "$HAUL_AUTHORIZED_KEY" >/home/haul/.ssh/authorized_keys
chown -R haul: /home/haul/.ssh
exec /usr/sbin/sshd -D -e -o HostKey=/etc/ssh/haul_host_key -o PasswordAuthentication=no \
    -o MaxStartups=100 -o LogLevel=VERBOSE
