#!/bin/sh
# After the units have changed. Services are not restarted: leaders are upgraded one by one.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
