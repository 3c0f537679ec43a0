#!/usr/bin/env bash
# HAProxy 2.6.12 (Debian 12) as a client of DNS, `server-template … _service._tcp… resolvers …`:
#
# 1. A truncated UDP answer (TC) is taken as the whole one. HAProxy does not ask again over TCP, so servers beyond the 512
#    bytes that it accepts by default are missing, and those that leave the answer go down for maintenance.
# 2. The weight of a server is (weight of the SRV record + 255) / 256. So records with the weights 1, 3 and 100, which
#    RFC 2782 relates to each other only, get equal shares.
#
# The name server is dnsmasq 2.90 (Debian 12), which truncates as it should: dig sees all 30 records over TCP.
#
# Output seen:
#   dig over TCP: 30 records
#   HAProxy: 13 of 30 servers
#   weights of 1, 3, 100: 1 1 1
#
# Exits with 0 while that is so. Needs Debian 12 with dig and python3; the packages are unpacked into a temporary directory.
set -euo pipefail
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
apt-get -qq download haproxy=2.6.12-1+deb12u4 dnsmasq-base=2.90-4~deb12u2 libnftables1 libnftnl11 libmnl0 libxtables12 \
    libjansson4 libnetfilter-conntrack3 libnfnetlink0 liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 2>/dev/null
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
port=22590
{
    for n in $(seq 30); do
        echo "srv-host=_many._tcp.example.test,h$n.example.test,80,0,1"
        echo "host-record=h$n.example.test,10.0.0.$n"
    done
    echo "srv-host=_weighed._tcp.example.test,h1.example.test,80,0,1"
    echo "srv-host=_weighed._tcp.example.test,h2.example.test,80,0,3"
    echo "srv-host=_weighed._tcp.example.test,h3.example.test,80,0,100"
} >dnsmasq.conf
root/usr/sbin/dnsmasq -k -C dnsmasq.conf --no-resolv --no-hosts --port=$port --listen-address=127.0.0.1 --bind-interfaces \
    --user="$(id -un)" --pid-file= &
pids+=($!)
cat >haproxy.cfg <<CFG
global
  stats socket $work/haproxy.sock mode 600 level admin
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
resolvers dns
  nameserver n1 127.0.0.1:$port
backend many
  server-template s 40 _many._tcp.example.test resolvers dns init-addr none
backend weighed
  server-template s 3 _weighed._tcp.example.test resolvers dns init-addr none
CFG
root/usr/sbin/haproxy -f haproxy.cfg >haproxy.log 2>&1 &
pids+=($!)
sleep 5
echo "dig over TCP: $(dig +tcp +short -p $port @127.0.0.1 _many._tcp.example.test SRV | wc -l) records" | tee seen
python3 - "$work/haproxy.sock" <<'PY' | tee -a seen
import socket, sys
control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
control.send(b"show servers state\n")
answer = b"".join(iter(lambda: control.recv(65536), b"")).decode()
rows = [line.split() for line in answer.splitlines()[2:] if line]
known = [row for row in rows if row[4] != "-"]
print(f"HAProxy: {sum(row[1] == 'many' for row in known)} of 30 servers")
print("weights of 1, 3, 100:", *(row[7] for row in known if row[1] == "weighed"))
PY
printf 'dig over TCP: 30 records\nHAProxy: 13 of 30 servers\nweights of 1, 3, 100: 1 1 1\n' | cmp - seen
