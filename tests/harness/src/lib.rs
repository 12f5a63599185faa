//! A throw-away Slurm cluster on loopback, and what the cluster stories share.
