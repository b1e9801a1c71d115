module tallystick.example/logcheck

go 1.25.0

// Not below v0.40.0: until then tlog.TileHashReader left some tiles unchecked (CVE-2026-56865; our tamper test shows it).
require golang.org/x/mod v0.40.0
