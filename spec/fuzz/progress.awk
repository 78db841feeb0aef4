# How far libFuzzer is, of its logs: the runs of each target, and the edges that they reach.
/^#[0-9]+.* cov: / { runs[FILENAME] = substr($1, 2); edges[FILENAME] = $4 }
END {
  for (log_file in runs) {
    name = log_file
    gsub(/.*\/|\.log$/, "", name)
    printf "%s%s: %d runs, %d edges", separator, name, runs[log_file], edges[log_file]
    separator = "; "
  }
}
