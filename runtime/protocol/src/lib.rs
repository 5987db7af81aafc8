//! What both binaries agree on: parameters of every kind of step, jobs, events, artifacts, versions.
