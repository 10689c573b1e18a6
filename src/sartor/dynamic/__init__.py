"""Networks that exchange blocks while they run, to keep a latency limit (MathNAS, section 3.4)."""
