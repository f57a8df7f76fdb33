module clusterling/benchmarks/loadgen

go 1.24
