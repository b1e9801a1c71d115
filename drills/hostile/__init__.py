"""Hostile input on every listener of a running collector, while honest senders send: memory stays bounded, and each refusal is counted by reason.

`drills.hostile.attacks` is the table of attacks, `drills.hostile.wire` how their bytes get to a listener, `drills.hostile.running` the drill.
"""
