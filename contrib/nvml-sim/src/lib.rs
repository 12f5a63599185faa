//! A MIG-true libnvidia-ml.so.1 without hardware.
