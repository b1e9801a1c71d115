"""Where do the services' own metrics go? To Prometheus: by remote-write, by OTLP, or to be scraped here.

Owns the noun `MetricsPassing` (`passing`): data points of OTLP metrics in, bounded, masked and cumulative ones out. `seriestable` says which series
there may be and makes deltas cumulative (`datapoint`, `exponential`), `promseries` translates to Prometheus' model with the names of `promnames`, `prompb` encodes it, `remotewrite` and
`otlpwrite` are the two ways to send it over an `endpoint`, `outbox` is the bounded queue in front of them, `exposition` is what is scraped, and
`ownmetrics` turns the sidecar's own metrics into the same. Metrics are no evidence: they may be dropped, but are counted then.
"""
