#!/bin/bash
# zkCli.sh ARGUMENT...: ZooKeeper's command line client. CLIENT_JVMFLAGS are options for Java.
export LC_ALL=C
classes=$(printf '%s:' "$ZK_CLASSES"/*.jar)
# shellcheck disable=SC2086 # options are words
exec java ${CLIENT_JVMFLAGS:--Xmx64m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC} -Dzookeeper.log.level=WARN \
  -Dlogback.configurationFile=/etc/zookeeper/logback.xml -cp "${classes%:}" org.apache.zookeeper.ZooKeeperMain "$@"
