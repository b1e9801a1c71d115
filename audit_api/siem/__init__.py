"""The log, followed by leaf index and sent on to a SIEM: durable, resumable, in order. The noun is `audit_api.siem.record.Record`."""
