#!/usr/bin/env bash
# `zkServer.sh start-foreground`, the only thing that the image's command asks of the official script.
set -euo pipefail
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m -cp "$CLASSPATH" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$ZOOCFGDIR/zoo.cfg"
