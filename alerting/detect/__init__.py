"""Which transactions are suspicious? Payments are read off the log as it grows; declared rules look at each.

A rule is a table of settings that makes a watch (`alerting.detect.rule`); `alerting.detect.engine` shows every payment to every
watch; `alerting.detect.follow` reads the log and tells what was found, on record first.
"""
