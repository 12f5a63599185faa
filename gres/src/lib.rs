//! What Slurm must be told about a node: gres.conf, slurm.conf and plugstack.conf text.
