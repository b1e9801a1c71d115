"""Faults made on purpose, and who hears of them: from a fault to a webhook, an incident, and back.

`drills.faults.setting` is the installation with Prometheus, Alertmanager and a webhook, `drills.faults.table` the faults, `drills.faults.running` the drill.
"""
