#!/bin/sh
# Runs an MPI launcher beside COUNT "machines": namespaces with a network, a host name and shared memory of their own, each
# joined to the launcher's by a cable of RATE (as tc takes it; "" for no limit). Their addresses are 10.77.1.2, 10.77.2.2
# and so on.
#
#     unshare --net --uts machines.sh COUNT RATE FOLDER COMMAND...
#
# FOLDER/agent stands in the place of ssh. As a user: unshare --map-root-user --net --uts.
set -e
count=$1 rate=$2 folder=$3
shift 3
trap 'kill $holders 2>/dev/null' EXIT
trap 'exit 1' INT TERM
hostname launcher
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
holders=
places=
for i in $(seq "$count"); do
    unshare --net --uts --mount sh -c "hostname machine$i; mount -t sysfs none /sys; mount -t tmpfs none /dev/shm
        echo > $folder/up$i; exec sleep 3600" &
    pid=$!
    holders="$holders $pid"
    while [ ! -e "$folder/up$i" ]; do sleep 0.01; done
    inside="nsenter --target $pid --net --uts --mount"
    ip link add "cable$i" type veth peer name eth0 netns "$pid"
    ip address add "10.77.$i.1/24" dev "cable$i"
    ip link set "cable$i" up
    $inside ip link set lo up
    $inside ip address add "10.77.$i.2/24" dev eth0
    $inside ip link set eth0 up
    $inside ip route add default via "10.77.$i.1"
    if [ -n "$rate" ]; then
        tc qdisc add dev "cable$i" root tbf rate "$rate" burst 128kb latency 50ms
        $inside tc qdisc add dev eth0 root tbf rate "$rate" burst 128kb latency 50ms
    fi
    while ! $inside grep -q up /sys/class/net/eth0/operstate; do sleep 0.05; done
    places="$places 10.77.$i.2) pid=$pid ;;"
done
cat > "$folder/agent" <<END
#!/bin/sh
while [ "\${1#-}" != "\$1" ]; do shift; done
case \$1 in $places *) echo "no machine \$1" >&2; exit 1 ;; esac
shift
exec nsenter --target "\$pid" --net --uts --mount --wd="$PWD" sh -c "\$*"
END
chmod +x "$folder/agent"
"$@"
